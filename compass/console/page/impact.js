// Impact of lost services: which categories depend on them, through which services, on which hosts. Pure.

import { categoryOf, condition, inUse, registered } from "./summary.js";
import { amount } from "./summary.js";
import { enumerate } from "./format.js";

/** Return the impact of services: `lost` (the services, worst first), `users` (categories that depend on them, nearest
 * first), `backups`, and `hosts` (those that are notified).
 *
 * A user: `category`, `depth` (1: it depends on one of the services' categories), `services`, `hosts`, `through` (the
 * services at depth 1, else categories one step nearer).
 */
export function impactOf(state, { services, categories }, ids) {
  const lost = ids
    .filter((id) => services.has(id))
    .map((id) => ({ id, category: categoryOf(id), health: condition(services.get(id)), ...figures(services.get(id)) }))
    .sort((a, b) => a.inUse / (a.of || 1) - b.inUse / (b.of || 1) || (a.id < b.id ? -1 : 1));
  const own = new Set(lost.map(({ category }) => category));
  const hostsOf = hostsByCategory(state);
  const users = [];
  const seen = new Set();
  for (let near = [...own], depth = 1; near.length; depth += 1) {
    const step = new Map();
    for (const name of near)
      for (const by of categories.get(name)?.by ?? []) {
        // What is lost may itself use what is lost; what only depends on its own users does not.
        const isNew = by !== name && !seen.has(by) && (depth === 1 || !own.has(by));
        if (isNew) step.set(by, [...(step.get(by) ?? []), name]);
      }
    for (const [name, on] of step) {
      seen.add(name);
      users.push({
        category: name,
        depth,
        on,
        through: depth === 1 ? lost.filter(({ category }) => on.includes(category)).map(({ id }) => id) : on,
        services: (categories.get(name)?.services ?? []).map(({ id }) => id).sort(),
        hosts: [...(hostsOf.get(name) ?? [])].sort(),
        health: categories.get(name)?.health ?? "none",
      });
    }
    near = [...step.keys()];
  }
  users.sort((a, b) => a.depth - b.depth || b.hosts.length - a.hosts.length || (a.category < b.category ? -1 : 1));
  const hosts = new Set(users.filter(({ depth }) => depth === 1).flatMap(({ hosts: of }) => of));
  return { lost, users, backups: backupsOf(own, categories, services), hosts: [...hosts].sort() };
}

function figures({ count }) {
  return { inUse: inUse(count), of: registered(count) };
}

function hostsByCategory(state) {
  const made = new Map();
  for (const { name, services = [] } of state.rows.host.values())
    for (const category of new Set(services.map(categoryOf)))
      made.set(category, (made.get(category) ?? new Set()).add(name));
  return made;
}

function backupsOf(own, categories, services) {
  const ids = new Set([...own].map((name) => categories.get(name)?.backup).filter(Boolean));
  return [...ids].map((id) => ({
    id,
    of: [...own].filter((name) => categories.get(name)?.backup === id),
    inUse: services.has(id) ? inUse(services.get(id).count) : 0,
  }));
}

/** Return the impact in sentences, for the page and for a ticket. */
export function describeImpact({ users, backups, hosts, lost }) {
  const direct = users.filter(({ depth }) => depth === 1);
  const rest = users.filter(({ depth }) => depth > 1);
  const names = (list) =>
    enumerate(
      list.map(({ category }) => category),
      4,
    );
  const own = [...new Set(lost.map(({ category }) => category))];
  const sentences = [
    direct.length
      ? `${names(direct)} ${direct.length === 1 ? "depends" : "depend"} on ${enumerate(own, 3)}: ` +
        `${amount(
          direct.reduce((sum, { services }) => sum + services.length, 0),
          "service",
        )} on ${amount(hosts.length, "host")}.`
      : `No category depends on ${enumerate(own, 3)}.`,
  ];
  if (rest.length) sentences.push(`${names(rest)} ${rest.length === 1 ? "depends" : "depend"} on those.`);
  for (const { id, of, inUse: usable } of backups)
    sentences.push(
      usable
        ? `The backup of ${enumerate(of)} is ${id} (${usable} in use).`
        : `The backup of ${enumerate(of)}, ${id}, has no listener in use.`,
    );
  if (!backups.length && own.length) sentences.push("There is no backup.");
  return sentences;
}
