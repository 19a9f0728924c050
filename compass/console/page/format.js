// Words and numbers for people. Pure.

import { amount, inUse, registered } from "./summary.js";
import { place } from "./store.js";

export const STATE_MEANS = {
  up: "in use",
  slow: "in use, users complain",
  suspect: "reported or lost; the verdict is pending",
  down: "failed",
  draining: "takes no new users",
  offline: "not registered any more",
};

export const HOST_MEANS = {
  step: "in step",
  behind: "behind",
  gap: "misses something",
  gone: "no session, behind",
  dialled: "no session, in step",
  unheard: "not heard of",
  barred: "barred",
};

const STEPS = [
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
];

/** `12 s`, `3 min`, `2 h`, `5 d`. */
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [size, unit] of STEPS) {
    if (whole >= size) return `${Math.floor(whole / size)} ${unit}`;
  }
  return `${whole} s`;
}

/** UTC to the second, as the logs of the daemons have it. */
export function moment(seconds) {
  return new Date(seconds * 1000)
    .toISOString()
    .replace(/\.\d+Z$/, "Z")
    .replace("T", " ");
}

/** A change of the log in words. */
export function told({ operation, row, removed }) {
  switch (row.row) {
    case "listener":
      return {
        what: operation,
        of: `${row.service} ${place(row)}`,
        now: removed ? "removed" : row.state,
        why: row.cause,
      };
    case "dependency":
      return { what: operation, of: `${row.category} on ${row.on}`, now: removed ? "removed" : "", why: "" };
    case "alert":
      return { what: removed ? "resolved" : "incident", of: row.text, now: "", why: "" };
    case "credential":
      return { what: operation, of: `${row.id} of ${row.service}`, now: removed ? "removed" : "", why: "" };
    default:
      return { what: operation, of: row.name ?? row.id, now: removed ? "removed" : "", why: "" };
  }
}

/** "web, mail and 3 more" */
export function some(names, most = 3) {
  if (names.length <= most + 1)
    return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  return `${names.slice(0, most).join(", ")} and ${names.length - most} more`;
}

/** Who uses a service and where they go without it: sentences for people who are about to act. */
export function uses(told, category) {
  const sentences = [];
  const { hosts = [], categories = [], services = [] } = told;
  sentences.push(
    hosts.length || categories.length
      ? `${amount(hosts.length, "host")} and ${amount(services.length, "service")} of ${amount(categories.length, "category")}` +
          `${categories.length ? ` (${some(categories)})` : ""} use this and are told.`
      : "Nobody depends on this: no host is told.",
  );
  sentences.push(
    category?.backup ? `The backup is ${category.backup}.` : "There is no backup service for this category.",
  );
  return sentences;
}

/** What a drain, or its end, comes to: `level` says how bad that is. */
export function drainImpact(listener, draining, service, category, backupService) {
  const left = inUse(service.count) - (draining && (listener.state === "up" || listener.state === "slow") ? 1 : 0);
  const others = `${left} of ${registered(service.count)} listeners of ${listener.service}`;
  if (!draining) return { level: "watch", text: "It is given to new users again as soon as it is found alive." };
  if (!["up", "slow"].includes(listener.state) && left > 0) {
    return {
      level: "watch",
      text: `It is ${listener.state} and not given out now; when it is well again it will still take no new users. ${others} ${left === 1 ? "is" : "are"} in use.`,
    };
  }
  if (left > 0)
    return {
      level: "watch",
      text: `${others} ${left === 1 ? "stays" : "stay"} in use. Those who use this one may finish.`,
    };
  if (!category?.backup)
    return { level: "ill", text: `It is the last one in use: new users of ${listener.service} will find none.` };
  const usable = backupService ? inUse(backupService.count) : 0;
  return {
    level: usable ? "watch" : "ill",
    text: usable
      ? `It is the last one in use: new users go to the backup ${category.backup} (${amount(usable, "listener")} in use).`
      : `It is the last one in use, and the backup ${category.backup} has no usable listener either: new users will find none.`,
  };
}

/** The listeners that a purge would remove. */
export function purged(listeners, state, ageSeconds, now) {
  return [...listeners].filter((row) => row.state === state && now - row.changed_at > ageSeconds);
}
