// Texts and numbers for people. Pure.

import { amount, inUse, registered } from "./summary.js";
import { endpoint } from "./store.js";

export const STATE_MEANS = {
  up: "in use",
  slow: "in use, users complain",
  suspect: "reported or lost, being checked",
  down: "failed",
  draining: "gets no new users",
  offline: "deregistered, or died with an open incident",
};

export const HOST_MEANS = {
  current: "up to date",
  lagging: "lagging",
  gap: "has a gap",
  lost: "no session",
  dialled: "no session kept, current",
  unknown: "unknown",
  barred: "barred",
};

const STEPS = [
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
];

/** Return an age such as `12 s`, `3 min`, `2 h`, `5 d`. */
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [size, unit] of STEPS) {
    if (whole >= size) return `${Math.floor(whole / size)} ${unit}`;
  }
  return `${whole} s`;
}

/** Return a time in UTC to the second, as in the logs of the daemons. */
export function timestamp(seconds) {
  return new Date(seconds * 1000)
    .toISOString()
    .replace(/\.\d+Z$/, "Z")
    .replace("T", " ");
}

/** Return the time of day in UTC, as in the logs of the daemons. */
export function timeOfDay(seconds) {
  return new Date(seconds * 1000).toISOString().slice(11, 19);
}

/** Return a time in UTC as short as it is clear: the time of day, with the date if it is of another day than `now`. */
export function moment(seconds, now) {
  const day = (at) => new Date(at * 1000).toISOString().slice(0, 10);
  const date = new Date(seconds * 1000);
  if (day(seconds) === day(now)) return timeOfDay(seconds);
  const month = date.toLocaleString("en-GB", { month: "short", timeZone: "UTC" });
  return `${date.getUTCDate()} ${month} ${timeOfDay(seconds).slice(0, 5)}`;
}

/** Return a time with its age: `04:15:50 (3 min)`. */
export function momentAndAge(seconds, now) {
  return `${moment(seconds, now)} (${age(now - seconds)})`;
}

/** Return who registered a listener: a host of this installation, or the principal of an administrator. */
export function origin({ host = "" }, { rows, at }) {
  // Before the hosts are read, nothing is known of any.
  if (!host || !("host" in at) || rows.host.has(host)) return { host, by: "" };
  return { host: "", by: host };
}

/** Return a change of the log as texts. */
export function describeChange({ operation, row, removed }) {
  switch (row.row) {
    case "listener":
      return {
        what: operation,
        of: `${row.service} ${endpoint(row)}`,
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

/** Return names as "web, mail and 3 more". */
export function enumerate(names, most = 3) {
  if (names.length <= most + 1)
    return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  return `${names.slice(0, most).join(", ")} and ${names.length - most} more`;
}

/** Return sentences about the users of a service, and about its backup. */
export function describeUsers(impact, category) {
  const sentences = [];
  const { hosts = [], categories = [], services = [] } = impact;
  sentences.push(
    hosts.length || categories.length
      ? `${amount(hosts.length, "host")} and ${amount(services.length, "service")} of ${amount(categories.length, "category")}` +
          `${categories.length ? ` (${enumerate(categories)})` : ""} use this and will be notified.`
      : "This has no dependants: no host will be notified.",
  );
  sentences.push(
    category?.backup ? `The backup is ${category.backup}.` : "There is no backup service for this category.",
  );
  return sentences;
}

/** Return the effect of a drain, or of its end: `level` is its severity. */
export function drainImpact(listener, draining, service, category, backupService) {
  const left = inUse(service.count) - (draining && (listener.state === "up" || listener.state === "slow") ? 1 : 0);
  const others = `${left} of ${registered(service.count)} listeners of ${listener.service}`;
  if (!draining) return { level: "watch", text: "It gets new users again as soon as a check finds it alive." };
  if (!["up", "slow"].includes(listener.state) && left > 0) {
    return {
      level: "watch",
      text: `It is ${listener.state} and gets no users now; after its recovery it will get no new users either. ${others} ${left === 1 ? "is" : "are"} in use.`,
    };
  }
  if (left > 0)
    return {
      level: "watch",
      text: `${others} ${left === 1 ? "stays" : "stay"} in use. Current users of this one may finish.`,
    };
  if (!category?.backup)
    return { level: "ill", text: `It is the last one in use: ${listener.service} will have none for new users.` };
  const usable = backupService ? inUse(backupService.count) : 0;
  return {
    level: usable ? "watch" : "ill",
    text: usable
      ? `It is the last one in use: new users go to the backup ${category.backup} (${amount(usable, "listener")} in use).`
      : `It is the last one in use, and the backup ${category.backup} has no usable listener either: there will be none for new users.`,
  };
}

/** Return the listeners that a purge would remove. */
export function purgeable(listeners, state, ageSeconds, now) {
  return [...listeners].filter((row) => row.state === state && now - row.changed_at > ageSeconds);
}
