// The parts of the console that need no browser: `node --test tests/console/pure.test.mjs`.

import assert from "node:assert/strict";
import test from "node:test";

const page = "../../compass/console/page";
const { EventReader } = await import(`${page}/events.js`);
const { FOLD_MIN, listing, NEVER, NEVER_FOLD_MIN, summarize } = await import(`${page}/summary.js`);
const { headline } = await import(`${page}/headline.js`);
const { hostList } = await import(`${page}/hosts.js`);
const { incidentGroups, reasonOf, SEVERE_SHARE, subjectOf } = await import(`${page}/incidents.js`);
const { describeImpact, impactOf } = await import(`${page}/impact.js`);
const { timeline } = await import(`${page}/timeline.js`);
const { ALERTS_MAX, ticket } = await import(`${page}/ticket.js`);
const { History, HISTORY_PAGE } = await import(`${page}/history.js`);
const { linkTo, parseLink } = await import(`${page}/route.js`);
const { layout } = await import(`${page}/graph_layout.js`);
const store = await import(`${page}/store.js`);
const format = await import(`${page}/format.js`);

function listener(service, port, state = "up", more = {}) {
  return { row: "listener", service, address: "10.0.0.1", port, state, changed_at: 100, epoch: 1, ...more };
}

function changed(revision, row, more = {}) {
  return { revision, previous: 0, time: revision, operation: "register", row, ...more };
}

function state(rows, revision = 10) {
  const made = store.emptyState();
  store.setPosition(made, { store: "s", revision, complete: true });
  for (const kind of store.KINDS) store.setRows(made, kind, { revision, rows: rows.filter((row) => row.row === kind) });
  return made;
}

const WORLD = [
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

test("a stream gives the same events whole and letter by letter, and comments are not events", () => {
  const text =
    ': hello\r\nid: 7\r\nevent: change\r\ndata: {"a":\r\ndata: 1}\r\n\r\n: still here\n\nid: 8\ndata: x\n\nevent: half\n';
  const whole = new EventReader().feed(text);
  assert.deepEqual(whole, [
    { id: "7", event: "change", data: '{"a":\n1}' },
    { id: "8", event: "message", data: "x" },
  ]);
  const reader = new EventReader();
  assert.deepEqual(
    [...text].flatMap((letter) => reader.feed(letter)),
    whole,
  );
});

test("a change that arrived while rows were read is applied exactly if it is newer", () => {
  const made = store.emptyState();
  assert.equal(store.setPosition(made, { store: "s", revision: 5, complete: true }), true);
  store.applyChange(made, changed(6, listener("china.uss", 1, "down")));
  store.applyChange(made, changed(8, listener("china.uss", 2, "down")));
  store.setRows(made, "listener", { revision: 7, rows: [listener("china.uss", 1), listener("china.uss", 2)] });
  assert.equal(made.rows.listener.get("china.uss 10.0.0.1:1").state, "up");
  assert.equal(made.rows.listener.get("china.uss 10.0.0.1:2").state, "down");
  store.applyChange(made, changed(9, listener("china.uss", 1), { removed: true }));
  assert.equal(made.rows.listener.size, 1);
  assert.equal(made.revision, 9);
});

test("a resumed stream keeps everything; another store, or a gap, restarts", () => {
  const made = state([...WORLD, listener("china.uss", 1)]);
  assert.equal(store.setPosition(made, { store: "s", revision: 10, complete: true }), false);
  assert.equal(made.rows.listener.size, 1);
  assert.equal(store.setPosition(made, { store: "s", revision: 4000, complete: false }), true);
  assert.equal(store.isWhole(made), false);
  assert.equal(store.setPosition(state(WORLD), { store: "another", revision: 1, complete: true }), true);
});

test("the log keeps the newest changes up to its limit, and a repeated change once", () => {
  const made = state(WORLD);
  for (let revision = 11; revision <= 11 + store.CHANGES_MAX; revision += 1) {
    store.applyChange(made, changed(revision, listener("china.uss", 1)));
    if (revision === 10 + store.CHANGES_MAX) assert.equal(made.changes.length, store.CHANGES_MAX);
  }
  assert.equal(made.changes.length, store.CHANGES_MAX);
  store.applyChange(made, changed(11 + store.CHANGES_MAX, listener("china.uss", 1)));
  assert.equal(made.changes.length, store.CHANGES_MAX);
  assert.equal(made.changes[0].revision, 12);
});

test("a resolved incident is kept among the recently resolved ones", () => {
  const alert = { row: "alert", id: "failure x", kind: "failure", opened_at: 1, text: "x is down" };
  const made = state([...WORLD, alert]);
  store.applyChange(made, changed(11, alert, { removed: true }));
  assert.equal(made.rows.alert.size, 0);
  assert.deepEqual(
    made.resolved.map(({ id, closed_at: at }) => [id, at]),
    [["failure x", 11]],
  );
});

test("a category is as ill as its worst service, and tokens are not services", () => {
  const { categories, services, total } = summarize(
    state([...WORLD, listener("china.uss", 1, "down"), listener("china.uss", 2, "offline"), listener("portal.web", 3)]),
  );
  assert.equal(categories.get("uss").health, "ill");
  assert.equal(categories.get("web").health, "well");
  assert.equal(categories.get("rescue").health, "none");
  assert.deepEqual(categories.get("uss").by, ["web"]);
  assert.equal(categories.has("gns-admin") || services.has("ci.gns-admin"), false);
  assert.equal(total.down, 1);
});

test("a service whose listeners are all deregistered stands at the top, and one that never had any does not", () => {
  const made = summarize(
    state([
      ...WORLD,
      listener("china.uss", 1, "offline"),
      listener("portal.web", 2, "down"),
      listener("portal.web", 3),
    ]),
  );
  assert.deepEqual(
    listing(made, {})
      .entries.map(({ key }) => key)
      .slice(0, 2),
    ["service china.uss", "service portal.web"],
  );
  assert.equal(made.categories.get("uss").health, "watch");
  assert.equal(made.categories.get("rescue").health, "none");
});

test("the list has the worst first, and finds by words, states and category", () => {
  const made = summarize(
    state([
      ...WORLD,
      listener("portal.web", 1),
      listener("china.uss", 2),
      listener("china.uss", 3, "down", { cause: "refused" }),
      listener("china.uss", 4, "offline"),
    ]),
  );
  const keys = (query) => listing(made, query).entries.map(({ key }) => key);
  assert.deepEqual(keys({}), [
    "service china.uss",
    "china.uss 10.0.0.1:3",
    "china.uss 10.0.0.1:2",
    "service portal.web",
    "portal.web 10.0.0.1:1",
    "service spare.rescue",
  ]);
  assert.deepEqual(keys({ words: "china REFUSED" }), ["service china.uss", "china.uss 10.0.0.1:3"]);
  assert.deepEqual(keys({ states: ["offline"] }), ["service china.uss", "china.uss 10.0.0.1:4"]);
  assert.deepEqual(keys({ category: "web" }), ["service portal.web", "portal.web 10.0.0.1:1"]);
  assert.deepEqual(keys({ words: "nothing" }), []);
});

test("listeners that are up are folded if there is one more than fit, unless a search shows them", () => {
  const many = (number) =>
    summarize(state([...WORLD, ...Array.from({ length: number }, (_, port) => listener("china.uss", port + 1))]));
  const lines = (number, query = {}) => listing(many(number), query).entries.length;
  assert.equal(lines(FOLD_MIN), FOLD_MIN + 3);
  assert.equal(lines(FOLD_MIN + 1), 3);
  assert.equal(lines(FOLD_MIN + 1, { opened: new Set(["china.uss"]) }), FOLD_MIN + 1 + 3);
  assert.equal(lines(FOLD_MIN + 1, { words: "china" }), FOLD_MIN + 1 + 1);
  assert.equal(listing(many(FOLD_MIN + 1), {}).shown, FOLD_MIN + 1);
});

function alert(id, text = "", at = 1, kind = "failure") {
  return { row: "alert", id: `${kind} ${id}`, kind, opened_at: at, text };
}

function lost(service, port, more = {}) {
  const row = listener(service, port, "offline", { cause: "its process ended", host: "node1", ...more });
  return [
    row,
    alert(
      `${service} 10.0.0.1:${port}`,
      `${service} at 10.0.0.1:${port} on host ${row.host} ended without deregistering`,
    ),
  ];
}

function seen(rows, status = {}, lags = [], unknown = "") {
  const made = state([...WORLD, ...rows]);
  const summary = summarize(made);
  const whole = { servers: [], ...status };
  const groups = incidentGroups(made, summary, whole);
  const hosts = hostList(made, lags, summary);
  return { made, summary, groups, line: headline(summary, { groups, status: whole, hosts, unknown }) };
}

const HOST = { row: "host", name: "h", services: ["portal.web"] };
const LAG = { host: "h", session: true, acknowledged: 3, pending: 0, status: "ok" };
const WELL = [listener("china.uss", 1), listener("portal.web", 1), listener("spare.rescue", 1), HOST];

test("a total loss is red and the headline; a partial one is amber", () => {
  const total = seen([...WELL.slice(1), ...lost("china.uss", 1), ...lost("china.uss", 2)]);
  assert.deepEqual([total.line.level, total.line.text], ["ill", "china.uss is lost"]);
  assert.deepEqual(
    total.groups.map(({ level, title }) => [level, title]),
    [["ill", "china.uss is lost"]],
  );
  assert.deepEqual(total.groups[0].scope, [
    "0 of 2 listeners in use",
    "on node1",
    "users go to spare.rescue (1 in use)",
  ]);
  assert.equal(total.line.listeners, "2 of 4");
  assert.equal(total.line.why, "2 of 4 listeners lost · 2 incidents open");
  const part = seen([...WELL, ...lost("china.uss", 2)]);
  assert.deepEqual([part.line.level, part.line.text], ["watch", "china.uss: 1 of 2 listeners lost"]);
  assert.deepEqual(
    part.groups.map(({ level, scope }) => [level, scope]),
    [["watch", ["1 in use"]]],
  );
});

test("a partial loss is red above its share, and amber at it", () => {
  const of = 10;
  const most = SEVERE_SHARE * of;
  const level = (number) => {
    const rows = Array.from({ length: of - number }, (_, port) => listener("china.uss", port + 1));
    const died = Array.from({ length: number }, (_, port) => lost("china.uss", port + 100)).flat();
    return seen([...rows, ...died]).groups[0].level;
  };
  assert.deepEqual([level(most), level(most + 1)], ["watch", "ill"]);
});

test("services of a category that are lost are one group, and lost ones stand before partial ones", () => {
  const services = ["cart", "list", "orders"].map((name) => ({ row: "service", id: `${name}.shop` }));
  const rows = [{ row: "category", name: "shop" }, ...services];
  for (const [number, { id }] of services.entries()) rows.push(...lost(id, number + 1));
  const { groups, line } = seen([...WELL, ...lost("china.uss", 9), ...rows]);
  assert.deepEqual(
    groups.map(({ id }) => id),
    ["category shop", "service china.uss"],
  );
  assert.deepEqual([groups[0].title, groups[0].scope[0]], ["shop: 3 of 3 services lost", "cart, list and orders"]);
  assert.equal(line.text, "shop: 3 of 3 services lost");
  const two = seen([...lost("china.uss", 1), ...rows]);
  assert.equal(two.line.text, "4 services lost: shop and china.uss");
});

test("a service is lost without any incident, and a drained one is not", () => {
  const suspect = seen([...WELL.slice(1), listener("china.uss", 1, "suspect")]);
  assert.deepEqual(
    [suspect.groups[0].level, suspect.groups[0].title, suspect.groups[0].alerts],
    ["ill", "china.uss has no listener in use", []],
  );
  const drained = seen([...WELL.slice(1), listener("china.uss", 1, "draining")]);
  assert.deepEqual(
    [drained.groups, drained.line.level, drained.line.text],
    [[], "watch", "1 service with all listeners draining"],
  );
});

test("what one host lost of several services is one group of the host", () => {
  const rest = [listener("china.uss", 5), listener("portal.web", 5)];
  const died = [...lost("china.uss", 1), ...lost("portal.web", 2)];
  assert.deepEqual(
    seen([...rest, ...died]).groups.map(({ id, title }) => [id, title]),
    [["host node1", "node1: 2 listeners lost"]],
  );
  const silent = seen([...rest, ...died, alert("session of host node1", "host node1 has no session")]);
  assert.deepEqual(
    silent.groups.map(({ title, alerts }) => [title, alerts.length]),
    [["node1 has no session", 3]],
  );
  // The host has another listener in use: it is the services that are ill.
  const alive = seen([...rest, ...died, listener("china.uss", 6, "up", { host: "node1" })]);
  assert.deepEqual(
    alive.groups.map(({ id }) => id),
    ["service portal.web", "service china.uss"],
  );
});

test("every incident is in exactly one group, whatever it is about", () => {
  const others = [
    "session of host a",
    "sessions of other hosts",
    "silence of server s",
    "certificates of s (30 days)",
    "certificates of s (invalid)",
  ];
  const more = [
    "doubt of s",
    "cap of uss",
    "cap of nothing",
    "digest of s",
    "unheld china.uss 10.0.0.1:3",
    "refusal of host b",
    "gone.uss 10.0.0.1:1",
  ];
  const odd = [...others, ...more].map((id) => alert(id, `${id}: why`));
  const slow = alert("china.uss 10.0.0.1:1", "slow", 1, "slow");
  const { groups, made } = seen([...WELL, ...lost("china.uss", 2), listener("china.uss", 3, "down"), ...odd, slow]);
  const ids = groups.flatMap(({ alerts }) => alerts.map(({ id }) => id));
  assert.deepEqual(ids.sort(), [...made.rows.alert.keys()].sort());
  assert.ok(groups.every(({ title, next, since, level }) => title && next && Number.isFinite(since) && level));
  const levels = groups.map(({ level }) => level);
  assert.deepEqual(levels, [...levels].sort());
  const level = (id) => subjectOf(alert(id)).level;
  assert.deepEqual(["certificates of s (30 days)", "certificates of s (invalid)", "something new"].map(level), [
    "watch",
    "ill",
    "ill",
  ]);
});

test("the reason of an incident leaves out what stands next to it", () => {
  const [row, died] = lost("china.uss", 1);
  assert.equal(reasonOf(died, row), "ended without deregistering");
  assert.equal(reasonOf(alert("x", "listener china.uss at 10.0.0.1:1 is down: refused"), row), "refused");
  assert.equal(reasonOf(alert("x", "something else"), row), "something else");
  assert.equal(reasonOf(alert("x", "something else"), undefined), "something else");
});

test("no headline says that all is well while something is not, or is not known, or is missing", () => {
  const line = (...given) => {
    const { level, text, why } = seen(...given).line;
    return [level, text, why];
  };
  assert.deepEqual(line(WELL, {}, [LAG]), ["well", "All well", ""]);
  assert.deepEqual(line(WELL.slice(0, 3)), ["note", "Nothing has failed", "no host has come yet"]);
  assert.deepEqual(line([WELL[0], HOST], {}, [LAG]), [
    "note",
    "Nothing has failed",
    "2 of 3 categories have no listener (web and rescue)",
  ]);
  assert.deepEqual(line([]), ["note", "Nothing is registered", "no host has come yet"]);
  const away = line(WELL, { trouble: "refused", trouble_since: 1700000000 }, [LAG]);
  assert.deepEqual(away.slice(0, 2), ["ill", "The store is unavailable: nothing can be registered since 22:13:20 UTC"]);
  assert.deepEqual(line(WELL, {}, [LAG], "no connection for 30 s").slice(0, 2), ["watch", "No connection for 30 s"]);
  assert.deepEqual(line(WELL, { servers: [{ role: "silent" }, { role: "keeper" }] }, [LAG]).slice(0, 2), [
    "watch",
    "1 server silent",
  ]);
  assert.deepEqual(line(WELL, {}, [{ ...LAG, session: false, status: "lost" }]).slice(0, 2), [
    "watch",
    "1 host without a session",
  ]);
  assert.deepEqual(line(WELL, {}, [{ ...LAG, pending: 7 }]).slice(0, 2), ["watch", "1 host lagging"]);
  assert.equal(seen(WELL, {}, []).line.hosts, "0 of 1");
  assert.equal(seen(WELL.slice(0, 3)).line.hosts, "none yet");
});

test("the store's outage is the first group", () => {
  const { groups } = seen([...lost("china.uss", 1)], { trouble: "connection refused", trouble_since: 5 });
  assert.deepEqual(
    groups.map(({ id }) => id),
    ["store", "service china.uss"],
  );
  assert.deepEqual([groups[0].level, groups[0].since], ["ill", 5]);
});

test("impact: who depends on what is lost, through which services, nearest first, also in cycles", () => {
  const rows = [
    { row: "category", name: "front" },
    { row: "service", id: "page.front" },
    { row: "dependency", category: "front", on: "web" },
    { row: "dependency", category: "uss", on: "front" },
    { row: "host", name: "n1", services: ["portal.web"] },
    { row: "host", name: "n2", services: ["portal.web", "page.front"] },
  ];
  const { made, summary } = seen([...rows, ...lost("china.uss", 1), listener("spare.rescue", 2)]);
  const impact = impactOf(made, summary, ["china.uss", "unknown.uss"]);
  assert.deepEqual(
    impact.lost.map(({ id, inUse, of }) => [id, inUse, of]),
    [["china.uss", 0, 1]],
  );
  assert.deepEqual(
    impact.users.map(({ category, depth, through, hosts }) => [category, depth, through, hosts]),
    [
      ["web", 1, ["china.uss"], ["n1", "n2"]],
      ["front", 2, ["web"], ["n2"]],
    ],
  );
  assert.deepEqual(impact.hosts, ["n1", "n2"]);
  assert.deepEqual(describeImpact(impact), [
    "web depends on uss: 1 service on 2 hosts.",
    "front depends on those.",
    "The backup of uss is spare.rescue (1 in use).",
  ]);
  assert.deepEqual(
    describeImpact(impactOf(made, summary, ["page.front"]))[0],
    "uss depends on front: 1 service on 0 hosts.",
  );
  assert.match(
    describeImpact(impactOf(state(WORLD), summarize(state(WORLD)), ["portal.web"])).join(" "),
    /^No category depends on web. There is no backup.$/,
  );
});

test("a timeline has changes, incidents and evidence of one listener, newest first, and repetitions once", () => {
  const one = listener("china.uss", 1, "down", { host: "n1" });
  const change = (revision, operation, more) => ({ ...changed(revision, { ...one, ...more }), operation });
  const changes = [
    change(1, "register", { state: "up", cause: "registered" }),
    change(2, "register", { state: "up", cause: "registered", load: 0.5 }),
    changed(3, listener("china.uss", 2)),
    change(4, "report", { state: "suspect", cause: "reported unreachable by portal.web on n2" }),
    change(6, "confirm", { state: "down", cause: "2 probes failed" }),
    { ...changed(7, alert("china.uss 10.0.0.1:1")), operation: "alert" },
    { ...changed(8, alert("china.uss 10.0.0.1:11")), operation: "alert" },
    change(9, "purge", { state: "down", cause: "2 probes failed" }),
  ];
  changes.at(-1).removed = true;
  const evidence = [
    { kind: "report", by: "n2", time: 3.5, detail: "no answer" },
    { kind: "probe", by: "gns1", time: 5, detail: "refused" },
    { kind: "findings", by: "n3", time: 5.5, alive: true },
  ];
  const entries = timeline(one, changes, evidence);
  assert.deepEqual(
    entries.map(({ time, picture, title, text }) => [time, picture, title, text]),
    [
      [9, "none", "Removed", "2 probes failed"],
      [7, "note", "Incident opened", ""],
      [6, "down", "Down", "2 probes failed"],
      [5.5, "up", "Probe by host n3", "alive"],
      [5, "down", "Probe by server gns1", "failed: refused"],
      [4, "suspect", "Reported", "reported unreachable by portal.web on n2"],
      [3.5, "suspect", "Report of n2", "no answer"],
      [1, "up", "Registered", "by n1"],
    ],
  );
  assert.equal(entries.at(-1).times, 2);
});

test("the log before the page was opened is read from its end backwards, without a gap, to its floor", async () => {
  const floor = 3;
  const newest = floor + 2 * HISTORY_PAGE;
  const entry = (revision) => ({ number: revision, change: { revision } });
  const get = async (_, { last, after, limit = 1_000 }) => {
    const from = Math.max(last ? newest - last + 1 : after + 1, floor);
    const until = Math.min(newest, from + 699, last ? newest : after + limit);
    const entries = Array.from({ length: until - from + 1 }, (_, number) => entry(from + number));
    return { entries, floor, more: until < (last ? newest : after + limit) && until < newest };
  };
  const log = new History({ get });
  const ends = () => [log.changes[0].revision, log.changes.at(-1).revision, log.changes.length, log.isWhole];
  await log.read();
  assert.deepEqual(ends(), [newest - HISTORY_PAGE + 1, newest, HISTORY_PAGE, false]);
  await log.readOlder();
  assert.deepEqual(ends(), [floor + 1, newest, 2 * HISTORY_PAGE, false]);
  await log.readOlder();
  assert.deepEqual(ends(), [floor, newest, 2 * HISTORY_PAGE + 1, true]);
  assert.equal(log.with([{ revision: newest + 2 }]), null);
  assert.equal(log.with([{ revision: newest }, { revision: newest + 1 }]).at(-1).revision, newest + 1);
  const broken = new History({ get: async () => Promise.reject(new Error("away")) });
  await broken.read();
  assert.deepEqual([broken.trouble, broken.with([{ revision: 7 }])], ["away", [{ revision: 7 }]]);
});

test("a link names one thing, and survives every character", () => {
  const id = "failure china.uss [2001:db8::1]:80 = 100 %&#?";
  assert.deepEqual(parseLink(linkTo("incident", id)), { kind: "incident", id });
  for (const other of ["", "#", "#hosts", "#incident=", "#incident=%", "#script=x"])
    assert.equal(parseLink(other), null);
});

test("a ticket has what, since when, scope, each incident, impact, next step and link, and is bounded", () => {
  const make = (number) => {
    const died = Array.from({ length: number }, (_, port) => lost("china.uss", port + 1)).flat();
    const { made, summary, groups } = seen(died);
    const listenerOf = (one) => made.rows.listener.get(subjectOf(one).name);
    const impact = impactOf(made, summary, groups[0].services);
    return ticket(groups[0], {
      impact,
      listenerOf,
      server: "gns1",
      revision: 7,
      now: 200,
      href: "https://x/console/#y",
    });
  };
  assert.equal(
    make(1),
    [
      "china.uss is lost",
      "Since 1970-01-01 00:01:40Z (1 min)",
      "Scope: 0 of 1 listener in use; on node1; the backup spare.rescue has no listener in use either",
      "- 1970-01-01 00:00:01Z china.uss 10.0.0.1:1 on node1: ended without deregistering",
      "Impact: web depends on uss: 1 service on 0 hosts. The backup of uss, spare.rescue, has no listener in use.",
      "Next: opengnsadmin explain china.uss",
      "Seen by gns1 at revision 7, 1970-01-01 00:03:20Z",
      "https://x/console/#y",
    ].join("\n"),
  );
  assert.equal(make(ALERTS_MAX).split("\n- ").length - 1, ALERTS_MAX);
  assert.match(make(ALERTS_MAX + 1), /\n- and 1 more\n/);
});

test("listeners that died are listed as lost, and deregistered ones are not", () => {
  const rows = [listener("portal.web", 9), listener("china.uss", 4, "offline")];
  for (const port of [1, 2, 3]) rows.push(...lost("china.uss", port));
  const { summary, line } = seen(rows);
  assert.equal(line.listeners, "1 of 4");
  assert.equal(summary.categories.get("uss").health, "ill");
  const keys = listing(summary, {}).entries.map(({ key }) => key);
  assert.deepEqual(keys.slice(0, 4), ["service china.uss", ...[1, 2, 3].map((port) => `china.uss 10.0.0.1:${port}`)]);
  assert.ok(!keys.includes("china.uss 10.0.0.1:4"));
});

test("services that never had a listener stand last, and as one row if there is one more than fit", () => {
  const keys = (number, query = {}) => {
    const rows = Array.from({ length: number - 1 }, (_, name) => ({ row: "service", id: `s${name}.uss` }));
    const all = summarize(state([...WORLD, ...rows, listener("portal.web", 1), listener("china.uss", 1)]));
    return listing(all, query).entries.map(({ key }) => key);
  };
  assert.equal(keys(NEVER_FOLD_MIN).length, 4 + NEVER_FOLD_MIN);
  assert.deepEqual(keys(NEVER_FOLD_MIN + 1).slice(4), [NEVER]);
  assert.equal(keys(NEVER_FOLD_MIN + 1, { opened: new Set([NEVER]) }).length, 4 + 1 + NEVER_FOLD_MIN + 1);
  assert.ok(keys(NEVER_FOLD_MIN + 1, { words: "spare" }).includes("service spare.rescue"));
});

test("a stale host is stale since the first change that it misses, or since it lost its session", () => {
  const made = state([...WORLD, HOST]);
  const stale = (lag) => hostList(made, [{ ...LAG, ...lag }], summarize(made))[0].stale;
  store.applyChange(made, changed(11, listener("spare.rescue", 1)));
  store.applyChange(made, changed(12, listener("china.uss", 1)));
  store.applyChange(made, changed(13, listener("china.uss", 1, "down")));
  assert.equal(stale({ acknowledged: 13 }), null);
  assert.deepEqual(stale({ acknowledged: 10, pending: 2 }), { at: 12, before: false });
  assert.deepEqual(stale({ acknowledged: 12, pending: 1 }), { at: 13, before: false });
  assert.deepEqual(stale({ acknowledged: 3, pending: 9 }), { at: 12, before: true });
  assert.deepEqual(stale({ acknowledged: 13, session: false, status: "lost", since: 99 }), { at: 99, before: false });
  assert.deepEqual(stale({ acknowledged: 13, session: false, status: "lost" }), { at: 0, before: false });
});

test("a listener of an administrator is on no host", () => {
  const hosts = new Map([["n1", {}]]);
  assert.deepEqual(format.origin({ host: "n1" }, hosts), { host: "n1", by: "" });
  assert.deepEqual(format.origin({ host: "me.gns-admin" }, hosts), { host: "", by: "me.gns-admin" });
  assert.deepEqual(format.origin({}, hosts), { host: "", by: "" });
});

test("times have a date unless it is today's", () => {
  const now = Date.UTC(2026, 10, 28, 4, 18, 50) / 1000;
  assert.equal(format.momentAndAge(now - 180, now), "04:15:50 (3 min)");
  assert.equal(format.moment(now - 5 * 3600, now), "27 Nov 23:18");
});

test("lagging hosts stand before those that are up to date", () => {
  const made = state([...WORLD, { row: "host", name: "barred", barred: true }]);
  const lag = (host, more) => ({ host, session: true, acknowledged: 1, pending: 0, status: "ok", ...more });
  const lags = [
    lag("a"),
    lag("b", { pending: 2 }),
    lag("c", { status: "gap" }),
    lag("d", { session: false, pending: 1 }),
  ];
  assert.deepEqual(
    hostList(made, lags, summarize(made)).map(({ name }) => name),
    ["c", "b", "d", "barred", "a"],
  );
});

test("the effect of a drain depends on the remaining listeners and on the backup", () => {
  const made = (...rows) => summarize(state([...WORLD, ...rows]));
  const says = (all, draining = true) => {
    const { services, categories } = all;
    return format.drainImpact(
      services.get("china.uss").listeners[0],
      draining,
      services.get("china.uss"),
      categories.get("uss"),
      services.get("spare.rescue"),
    );
  };
  assert.match(
    says(made(listener("china.uss", 1), listener("china.uss", 2))).text,
    /^1 of 2 listeners of china.uss stays in use/,
  );
  assert.match(
    says(made(listener("china.uss", 1), listener("spare.rescue", 2))).text,
    /go to the backup spare.rescue \(1 listener in use\)/,
  );
  const lost = says(made(listener("china.uss", 1)));
  assert.equal(lost.level, "ill");
  assert.match(lost.text, /has no usable listener either/);
  assert.match(says(made(listener("china.uss", 1, "draining")), false).text, /gets new users again/);
});

test("impact is shown as numbers and names", () => {
  const impact = { hosts: ["a", "b"], categories: ["web"], services: ["portal.web"] };
  assert.deepEqual(format.describeUsers(impact, { backup: "spare.rescue" }), [
    "2 hosts and 1 service of 1 category (web) use this and will be notified.",
    "The backup is spare.rescue.",
  ]);
  assert.match(format.describeUsers({}, undefined)[0], /^This has no dependants/);
  assert.equal(format.enumerate(["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
  assert.deepEqual([5, 65, 3600, 200_000].map(format.age), ["5 s", "1 min", "1 h", "2 d"]);
});

test("a layout has dependants left of their dependencies, no two boxes in one place, and allows cycles", () => {
  const box = { width: 10, height: 4, gapX: 4, gapY: 2 };
  const edges = [
    ["a", "b"],
    ["b", "c"],
    ["a", "c"],
    ["c", "a"],
    ["d", "c"],
    ["e", "e"],
    ["d", "unknown"],
  ];
  const { places, edges: lines, width, height } = layout(["a", "b", "c", "d", "e", "f"], edges, box);
  const at = [...places.values()].map(({ x, y }) => `${x} ${y}`);
  assert.equal(new Set(at).size, 6);
  assert.ok(places.get("d").x < places.get("c").x && places.get("a").x < places.get("b").x);
  assert.equal(lines.length, 5);
  for (const { x, y } of places.values()) assert.ok(x + 5 <= width && y + 2 <= height);
  assert.deepEqual([layout([], [], box).width, layout([], [], box).height], [0, 0]);
  const long = layout(
    ["a", "b", "c"],
    [
      ["a", "b"],
      ["b", "c"],
      ["a", "c"],
    ],
    box,
  ).edges.find(({ from, to }) => from === "a" && to === "c");
  assert.equal(long.points.length, 3);
});
