// Incidents in groups, worst first: what is lost, by service, category or host. Pure.
//
// Each open incident is in exactly one group. A service without any usable listener is in a group although no incident
// is open for it: the page must not wait for the message to say what is lost.

import { amount, categoryOf, condition, count, inUse, registered } from "./summary.js";
import { endpoint } from "./store.js";
import { enumerate } from "./format.js";

export const SEVERE_SHARE = 0.5;
// Share of a service's listeners above whose loss the service is red although some are left: the rest may not bear the
// load of all.
const SUBJECTS = [
  ["unheld ", "listener"],
  ["cap of ", "category", "ill"],
  ["session of host ", "host"],
  ["refusal of host ", "host"],
  ["trouble of host ", "host"],
  ["silence of server ", "server"],
  ["doubt of ", "server"],
];
// What an incident is about, by the beginning of its id, and its severity. An unknown one is red.
const CERTIFICATE = /^certificates of (.*) \((\d+ days|invalid)\)$/;
const LISTENER = /^[^ ]+\.[^ ]+ [^ ]+:\d+$/;

/** Return what an incident is about, and its severity on its own. */
export function subjectOf({ id, kind }) {
  const rest = id.startsWith(`${kind} `) ? id.slice(kind.length + 1) : id;
  for (const [prefix, about, level = "watch"] of SUBJECTS)
    if (rest.startsWith(prefix)) return { about, name: rest.slice(prefix.length), level };
  const certificate = CERTIFICATE.exec(rest);
  if (certificate)
    return { about: "server", name: certificate[1], level: certificate[2] === "invalid" ? "ill" : "watch" };
  return LISTENER.test(rest)
    ? { about: "listener", name: rest, level: "watch" }
    : { about: "other", name: rest, level: "ill" };
}

/** Return the text of an incident without what stands next to it on the page: service, endpoint and host. */
export function reasonOf({ text }, listener) {
  if (!listener) return text;
  const start = text.indexOf(`${listener.service} at ${endpoint(listener)}`);
  if (start < 0) return text;
  const rest = text.slice(start + `${listener.service} at ${endpoint(listener)}`.length);
  const host = ` on host ${listener.host}`;
  return (rest.startsWith(host) ? rest.slice(host.length) : rest).replace(/^ (is down: )?/, "");
}

/** Return the number of listeners that a service has lost: those that are down, and those that died. */
export function lostOf(service) {
  return service.count.down + service.count.died;
}

/** Return all groups, worst first.
 *
 * A group: `id`, `level` (`ill`, `watch`), `title`, `scope` (sentences), `since` (UNIX time), `alerts` (newest first),
 * `services` and `hosts` that it concerns, `lost` (services without a usable listener), `next` (a command).
 */
export function incidentGroups(state, summary, status = null) {
  const cases = [...state.rows.alert.values()].map((alert) => caseOf(state, alert));
  const made = status?.trouble ? [storeGroup(status)] : [];
  const rest = new Set(cases);
  made.push(...lostGroups(summary, rest));
  made.push(...hostGroups(summary, rest));
  made.push(...partialGroups(summary, rest));
  for (const one of rest) made.push(single(one));
  return made.sort(byRank);
}

function byRank(a, b) {
  return (
    (a.level === "ill" ? 0 : 1) - (b.level === "ill" ? 0 : 1) ||
    (a.id === "store" ? 0 : 1) - (b.id === "store" ? 0 : 1) ||
    b.lost.length - a.lost.length ||
    b.share - a.share ||
    b.alerts.length - a.alerts.length ||
    (a.title < b.title ? -1 : 1)
  );
}

function caseOf(state, alert) {
  const subject = subjectOf(alert);
  const listener = subject.about === "listener" ? state.rows.listener.get(subject.name) : undefined;
  return { alert, ...subject, listener, service: subject.about === "listener" ? subject.name.split(" ")[0] : "" };
}

function group(id, fields, cases) {
  const alerts = cases.map(({ alert }) => alert).sort((a, b) => b.opened_at - a.opened_at || (a.id < b.id ? -1 : 1));
  const hosts = [...new Set(cases.map(({ listener }) => listener?.host).filter(Boolean))].sort();
  const since = Math.min(...alerts.map(({ opened_at: at }) => at));
  return { id, since, alerts, hosts, services: [], lost: [], share: 0, scope: "", ...fields };
}

/** Remove the matching cases from those that are left, and return them. */
function claim(rest, matches) {
  const found = [...rest].filter(matches);
  for (const one of found) rest.delete(one);
  return found;
}

/** Return one group for each category with services that have no usable listener. */
function lostGroups({ categories, services }, rest) {
  return [...categories.values()].flatMap((category) => {
    const lost = category.services.filter((service) => condition(service) === "ill");
    if (!lost.length) return [];
    const ids = new Set(lost.map(({ id }) => id));
    const cases = claim(
      rest,
      ({ about, name, service }) => ids.has(service) || (about === "category" && name === category.name),
    );
    const served = category.services.filter((service) => condition(service) !== "none").length;
    const checked = lost.every(({ count: number }) => !number.down && !number.died);
    const failed = lost.flatMap(({ listeners, died }) =>
      listeners.filter((row) => row.state !== "offline" || died.has(row)),
    );
    const title =
      lost.length === 1
        ? `${lost[0].id} ${checked ? "has no listener in use" : "is lost"}`
        : `${category.name}: ${lost.length} of ${served} services lost`;
    const number = lost.reduce((sum, { count: of }) => sum + registered(of), 0);
    const made = group(
      lost.length === 1 ? `service ${lost[0].id}` : `category ${category.name}`,
      {
        level: "ill",
        title,
        services: [...ids],
        lost: [...ids],
        share: lost.length / served,
        next: `opengnsadmin explain ${lost.length === 1 ? lost[0].id : category.name}`,
      },
      cases,
    );
    const hosts = [...new Set(failed.map(({ host }) => host).filter(Boolean))].sort();
    const begun = lost.map((service) =>
      Math.max(...failed.filter((row) => row.service === service.id).map(({ changed_at: at }) => at)),
    );
    return [
      {
        ...made,
        hosts,
        // Since the first of these services was without a usable listener, not since the first listener failed.
        since: Math.min(...begun),
        scope: [
          lost.length > 1
            ? enumerate(
                lost.map(({ id }) => labelOf(id)),
                5,
              )
            : "",
          `0 of ${amount(number, "listener")} in use${checked ? ", being checked" : ""}`,
          hosts.length ? `on ${enumerate(hosts, 2)}` : "",
          backupOf(category, services),
        ].filter(Boolean),
      },
    ];
  });
}

function labelOf(service) {
  return service.slice(0, service.indexOf("."));
}

/** Return what users of a category without listeners use instead. */
export function backupOf({ backup }, services) {
  if (!backup) return "no backup";
  const usable = services.has(backup) ? inUse(services.get(backup).count) : 0;
  return usable
    ? `users go to ${backup} (${count(usable)} in use)`
    : `the backup ${backup} has no listener in use either`;
}

/** Return one group for each host that is itself in trouble, or that lost listeners of several services. */
function hostGroups({ services }, rest) {
  const hosts = new Map();
  const at = (name) => hosts.get(name) ?? hosts.set(name, { own: [], of: [] }).get(name);
  for (const one of rest) {
    if (one.about === "host") at(one.name).own.push(one);
    else if (one.listener?.host && one.alert.kind === "failure") at(one.listener.host).of.push(one);
  }
  return [...hosts].flatMap(([host, { own, of }]) => {
    const ids = [...new Set(of.map(({ service }) => service))].sort();
    if (!own.length && (ids.length < 2 || !isWhollyLost(host, services, ids))) return [];
    const mine = new Set([...own, ...of]);
    const cases = claim(rest, (one) => mine.has(one));
    const what = own.map(
      ({ alert }) => HOST_SAYS.find(([prefix]) => alert.id.includes(prefix))?.[1] ?? "is in trouble",
    );
    const title = own.length
      ? `${host} ${[...new Set(what)].join(", ")}`
      : `${host}: ${count(of.length)} listeners lost`;
    return [
      group(
        `host ${host}`,
        {
          level: "watch",
          title,
          services: ids,
          next: "opengnsadmin lag",
          scope: [
            own.length && of.length ? `${amount(of.length, "listener")} lost` : "",
            ids.length
              ? `of ${enumerate(ids, 3)}, which ${ids.length === 1 ? "has" : "have"} others`
              : "no listener is lost",
          ].filter(Boolean),
          share: of.length / 1_000,
        },
        cases,
      ),
    ].map((made) => ({ ...made, hosts: [host] }));
  });
}

const HOST_SAYS = [
  ["session of host", "has no session"],
  ["refusal of host", "is refused"],
];

/** Return whether no listener of a host is in use. */
function isWhollyLost(host, services, ids) {
  return ids.every((id) =>
    (services.get(id)?.listeners ?? []).every((row) => row.host !== host || !["up", "slow"].includes(row.state)),
  );
}

/** Return one group for each service that lost some of its listeners, or for the category of several such services. */
function partialGroups({ categories, services }, rest) {
  const found = new Map();
  for (const { service } of rest) {
    if (!service || !services.has(service)) continue;
    const category = categoryOf(service);
    found.set(category, (found.get(category) ?? new Set()).add(service));
  }
  return [...found].map(([name, ids]) => {
    const own = [...ids].sort().map((id) => services.get(id));
    const cases = claim(
      rest,
      ({ about, name: of, service }) =>
        ids.has(service) || (about === "category" && of === name && categories.has(name)),
    );
    const lost = own.reduce((sum, service) => sum + lostOf(service), 0);
    const all = own.reduce((sum, service) => sum + registered(service.count), 0);
    const severe = own.some((service) => lostOf(service) > SEVERE_SHARE * registered(service.count));
    const capped = cases.some(({ level }) => level === "ill");
    const subject = own.length === 1 ? own[0].id : name;
    const slow = cases.filter(({ alert }) => alert.kind === "slow").length;
    const suspect = own.reduce((sum, service) => sum + service.count.suspect, 0);
    const parts = [
      [lost, "lost"],
      [suspect, "suspect"],
      [slow, "slow"],
    ].filter(([number]) => number);
    const [first = [cases.length, "reported"], ...more] = parts;
    return group(
      own.length === 1 ? `service ${subject}` : `category ${name}`,
      {
        level: severe || capped ? "ill" : "watch",
        title: `${subject}: ${count(first[0])} of ${amount(all, "listener")} ${first[1]}`,
        services: [...ids].sort(),
        share: all ? lost / all : 0,
        next: `opengnsadmin explain ${subject}`,
        scope: [
          own.length > 1
            ? enumerate(
                own.map(({ id }) => labelOf(id)),
                5,
              )
            : "",
          ...more.map(([number, what]) => `${count(number)} ${what}`),
          capped ? "as many are down as the category's cap allows" : "",
          `${count(own.reduce((sum, service) => sum + inUse(service.count), 0))} in use`,
        ].filter(Boolean),
      },
      cases,
    );
  });
}

function storeGroup({ trouble, trouble_since: since }) {
  return {
    id: "store",
    level: "ill",
    title: "The store is unavailable",
    scope: ["nothing can be registered", "lookups go on", "hosts keep registrations and repeat them", trouble],
    since,
    alerts: [],
    services: [],
    hosts: [],
    lost: [],
    share: 1,
    next: "opengnsadmin status",
  };
}

const OTHER_NEXT = { server: "opengnsadmin status", category: "opengnsadmin explain", host: "opengnsadmin lag" };

/** Return the group of one incident that is about nothing that other incidents are about. */
function single({ alert, about, name, level }) {
  const [title, ...rest] = alert.text.split(": ");
  const next = about === "category" ? `opengnsadmin explain ${name}` : (OTHER_NEXT[about] ?? "opengnsadmin alert list");
  return group(`incident ${alert.id}`, { level, title, scope: rest.length ? [rest.join(": ")] : [], next }, [
    { alert },
  ]);
}
