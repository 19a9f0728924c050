// Small catalogue for the tests of the page's parts that need no browser.

const page = "../../compass/console/page";
const { summarize } = await import(`${page}/summary.js`);
const { headline } = await import(`${page}/headline.js`);
const { hostList } = await import(`${page}/hosts.js`);
const { incidentGroups } = await import(`${page}/incidents.js`);
const store = await import(`${page}/store.js`);

export function listener(service, port, state = "up", more = {}) {
  return { row: "listener", service, address: "10.0.0.1", port, state, changed_at: 100, epoch: 1, ...more };
}

export function changed(revision, row, more = {}) {
  return { revision, previous: 0, time: revision, operation: "register", row, ...more };
}

export function state(rows, revision = 10) {
  const made = store.emptyState();
  store.setPosition(made, { store: "s", revision, complete: true });
  for (const kind of store.KINDS) store.setRows(made, kind, { revision, rows: rows.filter((row) => row.row === kind) });
  return made;
}

export const WORLD = [
  { row: "category", name: "web" },
  { row: "category", name: "uss", backup: "spare.rescue" },
  { row: "category", name: "rescue" },
  { row: "category", name: "gns-admin" },
  { row: "service", id: "portal.web" },
  { row: "service", id: "china.uss" },
  { row: "service", id: "spare.rescue" },
  { row: "service", id: "ci.gns-admin" },
  { row: "dependency", category: "web", on: "uss" },
];

export function alert(id, text = "", at = 1, kind = "failure") {
  return { row: "alert", id: `${kind} ${id}`, kind, opened_at: at, text };
}

export function lost(service, port, more = {}) {
  const row = listener(service, port, "offline", { cause: "its process ended", host: "node1", ...more });
  return [
    row,
    alert(
      `${service} 10.0.0.1:${port}`,
      `${service} at 10.0.0.1:${port} on host ${row.host} ended without deregistering`,
    ),
  ];
}

export function seen(rows, status = {}, lags = [], unknown = "") {
  const made = state([...WORLD, ...rows]);
  const summary = summarize(made);
  const whole = { servers: [], ...status };
  const groups = incidentGroups(made, summary, whole);
  const hosts = hostList(made, lags, summary);
  return { made, summary, groups, line: headline(summary, { groups, status: whole, hosts, unknown }) };
}

export const HOST = { row: "host", name: "h", services: ["portal.web"] };
export const LAG = { host: "h", session: true, acknowledged: 3, pending: 0, status: "ok" };
export const WELL = [listener("china.uss", 1), listener("portal.web", 1), listener("spare.rescue", 1), HOST];
