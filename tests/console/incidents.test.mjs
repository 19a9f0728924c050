// Incidents, headline, impact and timeline of the console: `node --test tests/console/incidents.test.mjs`.

import assert from "node:assert/strict";
import test from "node:test";
import { alert, changed, HOST, LAG, listener, lost, seen, state, WELL, WORLD } from "./world.mjs";

const page = "../../compass/console/page";
const { summarize } = await import(`${page}/summary.js`);
const { reasonOf, SEVERE_SHARE, subjectOf } = await import(`${page}/incidents.js`);
const { describeImpact, impactOf } = await import(`${page}/impact.js`);
const { timeline } = await import(`${page}/timeline.js`);
const { ALERTS_MAX, ticket } = await import(`${page}/ticket.js`);
const { History, HISTORY_PAGE } = await import(`${page}/history.js`);
const { linkTo, parseLink } = await import(`${page}/route.js`);

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
  // What is lost may itself depend on something else that is lost.
  const both = impactOf(made, summary, ["china.uss", "page.front"]).users;
  assert.deepEqual(
    both.map(({ category, depth, through }) => [category, depth, through]),
    [
      ["web", 1, ["china.uss"]],
      ["uss", 1, ["page.front"]],
    ],
  );
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
      [4, "suspect", "Suspect", "reported unreachable by portal.web on n2"],
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
