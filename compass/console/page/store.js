// What the page knows of the catalogue: a copy of its rows, moved on by changes. No clock, no network, no page.
//
// Each kind of row is read by a request of its own and true at a revision of its own; the stream was opened before.
// So a change is laid over a kind exactly when it is newer than the reading of that kind, and nothing is told twice.

export const KINDS = ["category", "service", "dependency", "alert", "host", "listener"];
export const CHANGES_MAX = 500;
// Changes kept for the log on the page: more than anybody scrolls through.
export const RESOLVED_MAX = 20;
// Incidents that are over and still shown.
const WAITING_MAX = 100_000;
// Changes that may wait for a reading that does not end; then it is begun again.

const KEYS = {
  category: (row) => row.name,
  service: (row) => row.id,
  dependency: (row) => `${row.category} ${row.on}`,
  alert: (row) => row.id,
  host: (row) => row.name,
  listener: (row) => `${row.service} ${place(row)}`,
};

/** Address and port as one writes them. */
export function place({ address, port }) {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

export function keyOf(row) {
  return KEYS[row.row]?.(row) ?? "";
}

export function fresh() {
  return {
    store: "",
    revision: 0,
    rows: Object.fromEntries(KINDS.map((kind) => [kind, new Map()])),
    at: {},
    changes: [],
    resolved: [],
    waiting: [],
  };
}

/** Whether every kind has been read. */
export function isWhole(state) {
  return KINDS.every((kind) => kind in state.at);
}

/** The stream says where it stands. True: everything must be read again. */
export function position(state, { store, revision, complete }) {
  const begins = !complete || store !== state.store;
  if (begins) {
    Object.assign(state, { ...fresh(), store, changes: state.changes, resolved: state.resolved });
  }
  state.revision = Math.max(state.revision, revision);
  return begins;
}

/** All rows of a kind, true at a revision. Changes that came meanwhile are laid over them. */
export function reading(state, kind, { revision, rows }) {
  state.rows[kind] = new Map(rows.map((row) => [keyOf(row), row]));
  state.at[kind] = revision;
  state.revision = Math.max(state.revision, revision);
  for (const change of state.waiting) {
    if (change.row.row === kind) lay(state, change);
  }
  state.waiting = state.waiting.filter((change) => !(change.row.row in state.at));
}

/** One committed change. False when the page cannot follow any more and must read everything again. */
export function change(state, told) {
  state.revision = Math.max(state.revision, told.revision);
  if (!state.changes.some((known) => known.revision === told.revision)) {
    state.changes.push(told);
    if (state.changes.length > CHANGES_MAX) state.changes.shift();
  }
  const kind = told.row.row;
  if (!(kind in state.rows)) return true;
  if (kind in state.at) {
    lay(state, told);
    return true;
  }
  state.waiting.push(told);
  return state.waiting.length <= WAITING_MAX;
}

/** The newest entries of the update log, for what happened before the page was opened. */
export function past(state, entries) {
  const known = new Set(state.changes.map((told) => told.revision));
  const older = entries.map((entry) => entry.change).filter((told) => !known.has(told.revision));
  state.changes = [...older, ...state.changes].sort((a, b) => a.revision - b.revision).slice(-CHANGES_MAX);
  for (const told of state.changes) {
    if (told.row.row === "alert" && told.removed) resolve(state, told);
  }
}

function lay(state, told) {
  const { row, removed, revision } = told;
  if (revision <= state.at[row.row]) return;
  if (removed) state.rows[row.row].delete(keyOf(row));
  else state.rows[row.row].set(keyOf(row), row);
  if (row.row === "alert" && removed) resolve(state, told);
}

function resolve(state, { row, time, revision }) {
  if (state.resolved.some((known) => known.revision === revision)) return;
  const all = [...state.resolved, { ...row, closed_at: time, revision }];
  state.resolved = all.sort((a, b) => b.revision - a.revision).slice(0, RESOLVED_MAX);
}
