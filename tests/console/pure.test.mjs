// The parts of the console that need no browser: `node --test tests/console/pure.test.mjs`.

import assert from "node:assert/strict";
import test from "node:test";

const page = "../../compass/console/page";
const { EventReader } = await import(`${page}/events.js`);
const { FOLD_MIN, headline, hostList, listing, summarize } = await import(`${page}/summary.js`);
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
    "service spare.rescue",
    "service portal.web",
    "portal.web 10.0.0.1:1",
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

test("the headline gives the severity in one sentence", () => {
  const line = (rows, status = {}, lags = []) => {
    const made = state([...WORLD, ...rows]);
    const all = summarize(made);
    return headline(made, all, { servers: [], ...status }, hostList(made, lags, all));
  };
  assert.deepEqual(
    [line([listener("china.uss", 1)]).level, line([listener("china.uss", 1)]).text],
    ["well", "All well"],
  );
  const one = line([
    listener("china.uss", 1, "down"),
    listener("china.uss", 2),
    { row: "alert", id: "a", kind: "failure", opened_at: 1, text: "" },
  ]);
  assert.deepEqual([one.level, one.text, one.why], ["ill", "1 incident open", "1 listener down"]);
  assert.equal(line([], { trouble: "disk full" }).level, "ill");
  assert.equal(line([], { servers: [{ role: "keeper" }, { role: "silent" }] }).servers, "1 of 2");
  const lag = { host: "h", session: true, acknowledged: 3, pending: 7, status: "ok" };
  assert.equal(line([], {}, [lag, { ...lag, host: "i", pending: 0 }]).lag, "1 host lagging by up to 7");
});

test("listeners that died count as lost, and deregistered ones do not", () => {
  const alert = (port) => ({
    row: "alert",
    id: `failure china.uss 10.0.0.1:${port}`,
    kind: "failure",
    opened_at: 1,
    text: "",
  });
  const rows = [listener("portal.web", 9), listener("china.uss", 4, "offline")];
  for (const port of [1, 2, 3]) rows.push(listener("china.uss", port, "offline"), alert(port));
  const made = state([...WORLD, ...rows]);
  const all = summarize(made);
  const line = headline(made, all, { servers: [] }, []);
  assert.equal(line.listeners, "1 of 4");
  assert.deepEqual([line.level, line.text], ["ill", "3 incidents open"]);
  assert.equal(line.why, "1 service without a usable listener, 3 listeners died");
  assert.equal(all.categories.get("uss").health, "ill");
  const keys = listing(all, {}).entries.map(({ key }) => key);
  assert.deepEqual(keys.slice(0, 4), ["service china.uss", ...[1, 2, 3].map((port) => `china.uss 10.0.0.1:${port}`)]);
  assert.ok(!keys.includes("china.uss 10.0.0.1:4"));
});

test("no headline says that all is well while something is not, or is not known", () => {
  const made = state([...WORLD, listener("china.uss", 1)]);
  const all = summarize(made);
  const line = (status, hosts = [], unknown = "") => headline(made, all, { servers: [], ...status }, hosts, unknown);
  const away = line({ trouble: "refused", trouble_since: 1700000000 });
  assert.deepEqual(
    [away.level, away.text],
    ["ill", "The store is unavailable: nothing can be registered since 22:13:20 UTC"],
  );
  for (const [text, ...given] of [
    ["No connection for 30 s", {}, [], "no connection for 30 s"],
    ["1 server silent", { servers: [{ role: "silent" }, { role: "keeper" }] }],
    ["1 host without a session", {}, [{ condition: "lost", lag: { session: false, pending: 0 } }]],
  ]) {
    assert.deepEqual([line(...given).text, line(...given).level], [text, "watch"]);
  }
  const empty = state(WORLD);
  assert.deepEqual([headline(empty, summarize(empty), null, []).text], ["Nothing is registered"]);
  const lost = { host: "h", session: false, acknowledged: 3, pending: 0, status: "lost" };
  assert.equal(hostList(made, [lost], all)[0].condition, "lost");
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
