// The parts of the console that need no browser: `node --test tests/console/pure.test.mjs`.

import assert from "node:assert/strict";
import test from "node:test";
import { changed, HOST, LAG, listener, lost, seen, state, WORLD } from "./world.mjs";

const page = "../../compass/console/page";
const { EventReader } = await import(`${page}/events.js`);
const { FOLD_MIN, listing, NEVER, NEVER_FOLD_MIN, summarize } = await import(`${page}/summary.js`);
const { hostList } = await import(`${page}/hosts.js`);
const { layout } = await import(`${page}/graph_layout.js`);
const store = await import(`${page}/store.js`);
const format = await import(`${page}/format.js`);

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

test("a listener of an administrator is on no host, and nothing is said before the hosts are read", () => {
  const made = state([...WORLD, HOST]);
  assert.deepEqual(format.origin({ host: "h" }, made), { host: "h", by: "" });
  assert.deepEqual(format.origin({ host: "me.gns-admin" }, made), { host: "", by: "me.gns-admin" });
  assert.deepEqual(format.origin({}, made), { host: "", by: "" });
  delete made.at.host;
  assert.deepEqual(format.origin({ host: "me.gns-admin" }, made), { host: "me.gns-admin", by: "" });
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
