// Summary of the rows: health of services and categories, the headline, the order of the lists. Pure.

import { endpoint, keyOf } from "./store.js";

export const STATES = ["down", "suspect", "draining", "slow", "up", "offline"];
// Worst first: the order of everything on the page.
export const IN_USE = new Set(["up", "slow"]);
const RANK = Object.fromEntries(STATES.map((state, rank) => [state, rank]));
export const FOLD_MIN = 60;
// Listeners up to which all of them are shown: two screens.
const NONE_REGISTERED = 3.5;
// Rank of a service without listeners among the states: noteworthy, but not a failure.

const TOKENS = new Set(["gns-admin", "gns-viewer"]);
// Categories whose services are bearer tokens: they have no listeners, and are not part of an application.

export function categoryOf(service) {
  return service.slice(service.indexOf(".") + 1);
}

// `died`: listeners among the offline ones that failed and did not deregister; their incidents are open.
const COUNTED = [...STATES, "died"];

function counts() {
  return Object.fromEntries(COUNTED.map((state) => [state, 0]));
}

function add(to, from) {
  for (const state of COUNTED) to[state] += from[state];
}

/** Return whether a listener is offline because it failed: its incident is open. */
function hasDied(state, row) {
  return row.state === "offline" && state.rows.alert.has(`failure ${keyOf(row)}`);
}

/** Return the number of listeners that new users get. */
export function inUse(count) {
  return count.up + count.slow;
}

/** Return the number of listeners that should serve: all but the deregistered ones. */
export function registered(count) {
  return STATES.reduce((sum, state) => sum + (state === "offline" ? count.died : count[state]), 0);
}

/** Return `well`, `watch` (not all are in use), `ill` (some are registered, none is in use), or `none`. */
export function health(count) {
  if (!registered(count)) return "none";
  if (!inUse(count)) return "ill";
  return count.down || count.suspect || count.slow || count.died ? "watch" : "well";
}

/** Return the health of a service, or `gone` if all of its listeners are deregistered. */
export function condition({ count, listeners }) {
  return listeners.length && !registered(count) ? "gone" : health(count);
}

/** Return everything that is derived from the rows; called again after changes. */
export function summarize(state) {
  const services = new Map();
  const serviceOf = (id) => {
    if (!services.has(id)) services.set(id, { id, category: categoryOf(id), count: counts(), listeners: [], died: new Set() });
    return services.get(id);
  };
  const total = counts();
  const ofHost = new Map();
  for (const id of state.rows.service.keys()) if (!TOKENS.has(categoryOf(id))) serviceOf(id);
  for (const row of state.rows.listener.values()) {
    const service = serviceOf(row.service);
    service.count[row.state] = (service.count[row.state] ?? 0) + 1;
    service.listeners.push(row);
    total[row.state] += 1;
    if (hasDied(state, row)) {
      service.died.add(row);
      service.count.died += 1;
      total.died += 1;
    }
    if (row.host && row.state !== "offline") ofHost.set(row.host, (ofHost.get(row.host) ?? 0) + 1);
  }
  return { services, total, ofHost, categories: categories(state, services) };
}

function categories(state, services) {
  const made = new Map();
  for (const row of state.rows.category.values()) {
    const name = row.name;
    if (TOKENS.has(name)) continue;
    made.set(name, {
      name,
      backup: row.backup ?? "",
      policy: row.policy ?? {},
      count: counts(),
      services: [],
      lost: 0,
      gone: 0,
      on: [],
      by: [],
    });
  }
  for (const service of services.values()) {
    const category = made.get(service.category);
    if (!category) continue;
    category.services.push(service);
    add(category.count, service.count);
    category.lost += condition(service) === "ill";
    category.gone += condition(service) === "gone";
  }
  for (const { category, on } of state.rows.dependency.values()) {
    made.get(category)?.on.push(on);
    made.get(on)?.by.push(category);
  }
  for (const category of made.values()) {
    const own = health(category.count);
    category.health = category.lost ? "ill" : category.gone && own !== "ill" ? "watch" : own;
    category.on.sort();
    category.by.sort();
  }
  return made;
}

function serviceRank(service) {
  const place = { ill: -2, gone: -1, none: NONE_REGISTERED }[condition(service)];
  return place ?? Math.min(...service.listeners.map((row) => rankOf(service, row)));
}

function rankOf({ died }, row) {
  return died.has(row) ? RANK.down : RANK[row.state];
}

/** Return whether each of the words occurs in the texts of a listener. */
function matches(row, words) {
  const text = `${row.service} ${endpoint(row)} ${row.host ?? ""} ${row.state} ${row.zone ?? ""} ${row.cause ?? ""}`;
  const lower = text.toLowerCase();
  return words.every((word) => lower.includes(word));
}

/** Return the entries of the list, worst first: a service, then its listeners. `shown` and `all` count listeners.
 *
 * In a long list without a search, listeners that are up are folded below the name of their service, unless the service
 * is one of `opened`: so all others stand together, however many are up.
 */
export function listing({ services }, { words = "", states = [], category = "", opened = new Set() }) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const only = new Set(states);
  const groups = [];
  let shown = 0;
  let all = 0;
  for (const service of services.values()) all += service.listeners.length;
  const folds = all > FOLD_MIN && !wanted.length && !only.size;
  for (const service of services.values()) {
    if (category && service.category !== category) continue;
    const rows = service.listeners.filter(
      (row) =>
        (only.size ? only.has(row.state) : row.state !== "offline" || service.died.has(row)) && matches(row, wanted),
    );
    const named = !only.size && wanted.every((word) => service.id.toLowerCase().includes(word));
    if (!rows.length && !(named && !registered(service.count))) continue;
    rows.sort((a, b) => rankOf(service, a) - rankOf(service, b) || (endpoint(a) < endpoint(b) ? -1 : 1));
    groups.push({ service, rows, rank: serviceRank(service) });
    shown += rows.length;
  }
  groups.sort((a, b) => a.rank - b.rank || (a.service.id < b.service.id ? -1 : 1));
  const entries = [];
  for (const { service, rows } of groups) {
    const up = folds ? rows.filter((row) => row.state === "up").length : 0;
    const open = opened.has(service.id);
    entries.push({ key: `service ${service.id}`, service, folded: up, open });
    for (const row of rows.filter(({ state }) => open || !up || state !== "up"))
      entries.push({ key: keyOf(row), listener: row });
  }
  return { entries, shown, all };
}

/** Return the hosts, worst first: their rows joined with the state of their sessions. */
export function hostList(state, lags, { ofHost }) {
  const known = new Map(lags.map((lag) => [lag.host, lag]));
  const names = new Set([...state.rows.host.keys(), ...known.keys()]);
  const made = [...names].map((name) => {
    const row = state.rows.host.get(name) ?? {};
    const lag = known.get(name) ?? { session: false, acknowledged: 0, pending: 0, status: "unknown" };
    const condition = row.barred ? "barred" : hostCondition(lag);
    return { key: name, name, lag, condition, services: row.services ?? [], listeners: ofHost.get(name) ?? 0 };
  });
  const order = ["gap", "lagging", "lost", "barred", "unknown", "dialled", "current"];
  const rank = Object.fromEntries(order.map((one, number) => [one, number]));
  return made.sort(
    (a, b) => rank[a.condition] - rank[b.condition] || b.lag.pending - a.lag.pending || (a.name < b.name ? -1 : 1),
  );
}

function hostCondition({ session, pending, status }) {
  if (status === "lost") return "lost";
  if (status === "gap") return "gap";
  if (session) return pending ? "lagging" : "current";
  if (status === "unknown") return "unknown";
  return pending ? "lost" : "dialled";
}

/** Return the headline: the severity, one sentence, and the figures below it.
 *
 * `unknown`: why the page does not know the present state; empty: it does. Nothing is called well then.
 */
export function headline(state, { total, categories: all }, status, hosts, unknown = "") {
  const servers = status?.servers ?? [];
  const silent = servers.filter((server) => server.role === "silent").length;
  const bad = problems(state, { total, all, status, hosts, silent, unknown });
  const level = bad.some(({ ill }) => ill) ? "ill" : bad.length ? "watch" : "well";
  const [first = { text: registered(total) ? "All well" : "Nothing is registered" }, ...more] = bad;
  const lagging = hosts.filter((host) => host.condition === "lagging" || host.condition === "gap");
  const connected = hosts.filter((host) => host.lag.session).length;
  return {
    level: level === "well" && !registered(total) ? "watch" : level,
    text: first.text.charAt(0).toUpperCase() + first.text.slice(1),
    why: more.map(({ text }) => text).join(", "),
    servers: `${Math.max(servers.length, 1) - silent} of ${Math.max(servers.length, 1)}`,
    listeners: `${count(inUse(total))} of ${count(registered(total))}`,
    hosts: `${count(connected)} of ${count(hosts.length)}`,
    lag: !connected
      ? "no host"
      : lagging.length
        ? `${amount(lagging.length, "host")} lagging by up to ${count(Math.max(...lagging.map((one) => one.lag.pending)))}`
        : "all up to date",
  };
}

/** Return what is not well, worst first; `ill`: a person must act. The first one is the headline. */
function problems(state, { total, all, status, hosts, silent, unknown }) {
  const sum = (of) => [...all.values()].reduce((number, category) => number + category[of], 0);
  const alerts = state.rows.alert.size;
  const [lost, gone] = [sum("lost"), sum("gone")];
  const away = hosts.filter(({ condition }) => condition === "lost").length;
  const since = status?.trouble_since ? ` since ${timeOfDay(status.trouble_since)}` : "";
  return [
    [status?.trouble, `the store is unavailable: nothing can be registered${since}`, true],
    [unknown, unknown, false],
    [alerts, `${amount(alerts, "incident")} open`, true],
    [lost, `${amount(lost, "service")} without a usable listener`, true],
    [gone, `${amount(gone, "service")} with all listeners deregistered`, false],
    [total.died, `${amount(total.died, "listener")} died`, false],
    [total.down, `${amount(total.down, "listener")} down`, false],
    [total.suspect, `${total.suspect} suspect`, false],
    [away, `${amount(away, "host")} without a session`, false],
    [silent, `${amount(silent, "server")} silent`, false],
  ]
    .filter(([is]) => is)
    .map(([, text, ill]) => ({ text, ill }));
}

/** Return the time of day in UTC, as in the logs of the daemons. */
function timeOfDay(seconds) {
  return `${new Date(seconds * 1000).toISOString().slice(11, 19)} UTC`;
}

export function amount(number, noun) {
  return `${count(number)} ${number === 1 ? noun : noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;
}

export function count(number) {
  return number.toLocaleString("en-US");
}
