// Timeline of a listener: its changes in the update log, its incidents, and the evidence about its health. Pure.

import { keyOf } from "./store.js";

const OPERATIONS = {
  register: "Registered",
  deregister: "Deregistered",
  died: "Died",
  report: "Suspect",
  suspect: "Suspect",
  confirm: "Down",
  retract: "In use again",
  recover: "Recovered",
  drain: "Drained",
  undrain: "Undrained",
  slow: "Slow",
  purge: "Removed",
  "check-failed": "Own check failed",
  "check-passed": "Own check passed",
};
// Title of an entry by the operation in the update log; another operation is its own title.
const EVIDENCE = {
  report: (by) => `Report of ${by}`,
  session: (by) => `${by} lost its session`,
  probe: (by) => `Probe by server ${by}`,
  findings: (by) => `Probe by host ${by}`,
};

/** Return the entries of a listener, newest first: `{ time, picture, title, text, revision, source, times }`.
 *
 * `changes`: changes of the log in order, also of other rows. `evidence`: as in a case file. `times`: the number of
 * equal entries in a row that this one stands for.
 */
export function timeline(listener, changes, evidence = []) {
  const key = keyOf(listener);
  const made = [];
  let last = null;
  for (const change of changes) {
    const { row } = change;
    if (row.row === "listener" && keyOf(row) === key) {
      const same = last && isSame(last.change, change);
      // A host that registers again, or reports its load, changes nothing that matters here.
      if (same) last.times += 1;
      else made.push((last = ofChange(change)));
    } else if (row.row === "alert" && row.id.endsWith(` ${key}`)) {
      made.push(ofAlert(change));
    }
  }
  made.push(...evidence.map(ofEvidence));
  return made
    .map((entry, number) => ({ ...entry, number }))
    .sort((a, b) => b.time - a.time || b.revision - a.revision || b.number - a.number)
    .map(({ change: _, number: __, ...entry }) => entry);
}

function isSame({ operation, row, removed }, next) {
  return (
    !removed &&
    operation === next.operation &&
    row.state === next.row.state &&
    row.epoch === next.row.epoch &&
    row.cause === next.row.cause &&
    Boolean(row.draining) === Boolean(next.row.draining)
  );
}

function ofChange(change) {
  const { time, revision, operation, row, removed } = change;
  const title = OPERATIONS[operation] ?? operation;
  const by = operation === "register" && row.host ? `by ${row.host}` : "";
  // A cause that only repeats the title says nothing.
  const cause = (row.cause ?? "").toLowerCase() === title.toLowerCase() ? "" : (row.cause ?? "");
  const picture = removed ? "none" : operation === "died" ? "down" : row.state;
  return {
    time,
    revision,
    picture,
    title,
    text: [cause, by].filter(Boolean).join(", "),
    source: "log",
    times: 1,
    change,
  };
}

function ofAlert({ time, revision, row, removed }) {
  const title = removed ? "Incident resolved" : "Incident opened";
  return { time, revision, picture: "note", title, text: row.kind === "slow" ? "slow" : "", source: "log", times: 1 };
}

function ofEvidence({ kind, by, time, alive = false, detail = "" }) {
  const title = EVIDENCE[kind]?.(by) ?? `${kind} ${by}`;
  const isProbe = kind === "probe" || kind === "findings";
  const result = isProbe ? (alive ? "alive" : "failed") : "";
  const text = [result, detail].filter(Boolean).join(": ");
  return {
    time,
    revision: 0,
    picture: alive ? "up" : isProbe ? "down" : "suspect",
    title,
    text,
    source: "evidence",
    times: 1,
  };
}
