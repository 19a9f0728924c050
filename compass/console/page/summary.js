// What the rows come to: health of services and categories, the headline, the order of the list. Pure.

import { keyOf, place } from "./store.js";

export const STATES = ["down", "suspect", "draining", "slow", "up", "offline"];
// Worst first: the order of everything on the page.
export const IN_USE = new Set(["up", "slow"]);
const RANK = Object.fromEntries(STATES.map((state, rank) => [state, rank]));
export const FOLD_MIN = 60;
// Listeners up to which all of them are shown: two screens.
const NONE_REGISTERED = 3.5;
// Where a service without listeners stands among states: worth a look, and no failure.

const TOKENS = new Set(["gns-admin", "gns-viewer"]);
// Categories whose services are bearer tokens: nobody listens there, and they are no part of an application.

export function categoryOf(service) {
  return service.slice(service.indexOf(".") + 1);
}

function counts() {
  return Object.fromEntries(STATES.map((state) => [state, 0]));
}

function add(to, from) {
  for (const state of STATES) to[state] += from[state];
}

/** How many of them are given to new users. */
export function inUse(count) {
  return count.up + count.slow;
}

/** How many are registered: all but the offline ones. */
export function registered(count) {
  return STATES.reduce((sum, state) => sum + (state === "offline" ? 0 : count[state]), 0);
}

/** `well`, `watch` (something is not in use), `ill` (nothing is left, though something is registered), `none`. */
export function health(count) {
  if (!registered(count)) return "none";
  if (!inUse(count)) return "ill";
  return count.down || count.suspect || count.slow ? "watch" : "well";
}

/** The same of a service, or `gone`: it had listeners, and none of them is registered any more. */
export function condition({ count, listeners }) {
  return listeners.length && !registered(count) ? "gone" : health(count);
}

/** Everything that is derived from the rows, made anew after changes. */
export function figures(state) {
  const services = new Map();
  const serviceOf = (id) => {
    if (!services.has(id)) services.set(id, { id, category: categoryOf(id), count: counts(), listeners: [] });
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
  return place ?? Math.min(...service.listeners.map((row) => RANK[row.state]));
}

/** Whether each of the words is somewhere in what is known of a listener. */
function matches(row, words) {
  const text = `${row.service} ${place(row)} ${row.host ?? ""} ${row.state} ${row.zone ?? ""} ${row.cause ?? ""}`;
  const lower = text.toLowerCase();
  return words.every((word) => lower.includes(word));
}

/** The entries of the list, worst first: a service, then its listeners. `shown` and `all` count listeners.
 *
 * Where there are many and nothing is searched for, those that are up are folded away below the name of their service,
 * unless it is one of `opened`: so what is not well stands together, however many are well.
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
      (row) => (only.size ? only.has(row.state) : row.state !== "offline") && matches(row, wanted),
    );
    const named = !only.size && wanted.every((word) => service.id.toLowerCase().includes(word));
    if (!rows.length && !(named && !registered(service.count))) continue;
    rows.sort((a, b) => RANK[a.state] - RANK[b.state] || (place(a) < place(b) ? -1 : 1));
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

/** How far the hosts are, worst first: rows of hosts joined with what the server knows of their sessions. */
export function hostList(state, lags, { ofHost }) {
  const known = new Map(lags.map((lag) => [lag.host, lag]));
  const names = new Set([...state.rows.host.keys(), ...known.keys()]);
  const made = [...names].map((name) => {
    const row = state.rows.host.get(name) ?? {};
    const lag = known.get(name) ?? { session: false, acknowledged: 0, pending: 0, status: "unknown" };
    const condition = row.barred ? "barred" : hostCondition(lag);
    return { key: name, name, lag, condition, services: row.services ?? [], listeners: ofHost.get(name) ?? 0 };
  });
  const order = ["gap", "behind", "gone", "barred", "unheard", "dialled", "step"];
  const rank = Object.fromEntries(order.map((one, number) => [one, number]));
  return made.sort(
    (a, b) => rank[a.condition] - rank[b.condition] || b.lag.pending - a.lag.pending || (a.name < b.name ? -1 : 1),
  );
}

function hostCondition({ session, pending, status }) {
  if (status === "gap") return "gap";
  if (session) return pending ? "behind" : "step";
  if (status === "unknown") return "unheard";
  return pending ? "gone" : "dialled";
}

/** The headline: how bad it is, in one sentence, and the figures below it. */
export function headline(state, { total, categories: all }, status, hosts) {
  const alerts = state.rows.alert.size;
  const servers = status?.servers ?? [];
  const silent = servers.filter((server) => server.role === "silent").length;
  const lost = [...all.values()].reduce((sum, category) => sum + category.lost, 0);
  const gone = [...all.values()].reduce((sum, category) => sum + category.gone, 0);
  const bad = [];
  if (status?.trouble) bad.push("the store cannot be written");
  if (lost) bad.push(`${amount(lost, "service")} without a usable listener`);
  if (gone) bad.push(`${amount(gone, "service")} with none registered any more`);
  if (total.down) bad.push(`${amount(total.down, "listener")} down`);
  if (total.suspect) bad.push(`${total.suspect} suspect`);
  if (silent) bad.push(`${amount(silent, "server")} silent`);
  const level = alerts || lost || status?.trouble ? "ill" : bad.length ? "watch" : "well";
  const first = alerts ? `${amount(alerts, "incident")} open` : bad.length ? "No incident open" : "All well";
  const behind = hosts.filter((host) => host.condition === "behind" || host.condition === "gap");
  const connected = hosts.filter((host) => host.lag.session).length;
  return {
    level,
    text: first,
    why: bad.join(", "),
    servers: `${Math.max(servers.length, 1) - silent} of ${Math.max(servers.length, 1)}`,
    listeners: `${count(inUse(total))} of ${count(registered(total))}`,
    hosts: `${count(connected)} of ${count(hosts.length)}`,
    lag: !connected
      ? "to nobody"
      : behind.length
        ? `${amount(behind.length, "host")} behind, most ${count(Math.max(...behind.map((one) => one.lag.pending)))}`
        : "all in step",
  };
}

export function amount(number, noun) {
  return `${count(number)} ${number === 1 ? noun : noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;
}

export function count(number) {
  return number.toLocaleString("en-US");
}
