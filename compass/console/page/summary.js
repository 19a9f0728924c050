// Summary of the rows: health of services and categories, and the order of the list of listeners. Pure.

import { endpoint, keyOf } from "./store.js";

export const STATES = ["down", "suspect", "draining", "slow", "up", "offline"];
// Worst first: the order of everything on the page.
export const IN_USE = new Set(["up", "slow"]);
const RANK = Object.fromEntries(STATES.map((state, rank) => [state, rank]));
export const FOLD_MIN = 60;
// Listeners up to which all of them are shown: two screens.
export const NEVER_FOLD_MIN = 3;
// Services without any listener yet up to which each has a row of its own.
const NONE_REGISTERED = STATES.length;
// Rank of a service that never had a listener among the states: behind all that exist.

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

/** Return `well`, `watch` (not all are in use), `ill` (some are registered, none is in use), or `none`.
 *
 * A service whose listeners are all draining is not lost: an administrator has done it, and its users may finish.
 */
export function health(count) {
  if (!registered(count)) return "none";
  if (!inUse(count)) return count.draining === registered(count) ? "watch" : "ill";
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
    if (!services.has(id))
      services.set(id, { id, category: categoryOf(id), count: counts(), listeners: [], died: new Set() });
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

export const NEVER = "never";
// Key of the row that stands for all services without any listener yet.

/** Return the entries of the list, worst first: a service, then its listeners. `shown` and `all` count listeners.
 *
 * In a long list without a search, listeners that are up are folded below the name of their service, unless the service
 * is one of `opened`: so all others stand together, however many are up. So are services that never had a listener.
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
  const never = groups.filter(({ service }) => condition(service) === "none");
  const foldsNever = never.length > NEVER_FOLD_MIN && !wanted.length && !category;
  const open = opened.has(NEVER);
  for (const { service, rows } of groups) {
    if (foldsNever && condition(service) === "none") continue;
    const up = folds ? rows.filter((row) => row.state === "up").length : 0;
    const unfolded = opened.has(service.id);
    entries.push({ key: `service ${service.id}`, service, folded: up, open: unfolded });
    for (const row of rows.filter(({ state }) => unfolded || !up || state !== "up"))
      entries.push({ key: keyOf(row), listener: row });
  }
  if (foldsNever) {
    entries.push({ key: NEVER, never: never.length, open });
    if (open) for (const { service } of never) entries.push({ key: `service ${service.id}`, service, folded: 0, open });
  }
  return { entries, shown, all };
}

export function amount(number, noun) {
  return `${count(number)} ${number === 1 ? noun : noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;
}

export function count(number) {
  return number.toLocaleString("en-US");
}
