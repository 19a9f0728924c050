// Hosts and the revisions that they hold: which lag, and since when. Pure.

import { categoryOf } from "./summary.js";

const ORDER = ["gap", "lagging", "lost", "barred", "unknown", "dialled", "current"];
const RANK = Object.fromEntries(ORDER.map((one, number) => [one, number]));
export const STALE = new Set(["gap", "lagging", "lost"]);
// Conditions of a host that may not hold the present state.

/** Return the hosts, worst first: their rows joined with the state of their sessions.
 *
 * `stale`: null, or since when a host does not hold all that concerns it, as `{ at, before }`; `before`: it is older
 * than the changes that this page has, `at` 0: unknown.
 */
export function hostList(state, lags, { ofHost }) {
  const known = new Map(lags.map((lag) => [lag.host, lag]));
  const names = new Set([...state.rows.host.keys(), ...known.keys()]);
  const uses = usesOf(state);
  const made = [...names].map((name) => {
    const row = state.rows.host.get(name) ?? {};
    const lag = known.get(name) ?? { session: false, acknowledged: 0, pending: 0, status: "unknown" };
    const condition = row.barred ? "barred" : hostCondition(lag);
    const services = row.services ?? [];
    const stale = STALE.has(condition) ? staleSince(state, lag, services, uses, condition) : null;
    return { key: name, name, lag, condition, stale, services, listeners: ofHost.get(name) ?? 0 };
  });
  return made.sort(
    (a, b) => RANK[a.condition] - RANK[b.condition] || b.lag.pending - a.lag.pending || (a.name < b.name ? -1 : 1),
  );
}

function hostCondition({ session, pending, status }) {
  if (status === "lost") return "lost";
  if (status === "gap") return "gap";
  if (session) return pending ? "lagging" : "current";
  if (status === "unknown") return "unknown";
  return pending ? "lost" : "dialled";
}

/** Return the categories by the category that depends on them. */
function usesOf(state) {
  const uses = new Map();
  for (const { category, on } of state.rows.dependency.values())
    uses.set(category, [...(uses.get(category) ?? []), on]);
  return uses;
}

/** Return the time of the oldest change that concerns a host and that it has not acknowledged. */
function staleSince(state, { acknowledged, since = 0 }, services, uses, condition) {
  const concerned = new Set(services.flatMap((service) => uses.get(categoryOf(service)) ?? []));
  const { changes } = state;
  const missed = changes.find(({ revision, row }) => revision > acknowledged && concerned.has(topicOf(row)));
  const reaches = changes.length > 0 && changes[0].revision <= acknowledged + 1;
  if (missed) return { at: missed.time, before: !reaches };
  // A host without a session misses nothing yet; what it holds is uncertain from the end of its session on.
  if (condition === "lost" && since) return { at: since, before: false };
  return { at: 0, before: false };
}

function topicOf(row) {
  if (row.row === "listener") return categoryOf(row.service);
  if (row.row === "service") return categoryOf(row.id);
  return row.row === "category" ? row.name : "";
}

/** Return the numbers of hosts: all, with a session, without one after they had one, stale
 * with a session, and those that no server has seen in this run of it. */
export function hostFigures(hosts) {
  const of = (is) => hosts.filter(({ condition }) => condition === is).length;
  return {
    all: hosts.length,
    connected: hosts.filter(({ lag }) => lag.session).length,
    lost: of("lost"),
    lagging: of("lagging") + of("gap"),
    unknown: of("unknown"),
  };
}
