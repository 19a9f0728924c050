// Copy of the catalogue's rows, updated by changes. No clock, no network, no page.
//
// Each kind of row is read by its own request and is true at its own revision; the stream was opened before. A change is
// applied to a kind exactly if the change is newer than the rows of that kind, so no change is applied twice.

export const KINDS = ["category", "service", "dependency", "alert", "host", "listener"];
export const CHANGES_MAX = 500;
// Changes kept for the log on the page: more than a reader scrolls through.
export const RESOLVED_MAX = 20;
// Resolved incidents that are still shown.
const WAITING_MAX = 100_000;
// Changes that may wait while rows are being read; with more, the reading starts again.

const KEYS = {
  category: (row) => row.name,
  service: (row) => row.id,
  dependency: (row) => `${row.category} ${row.on}`,
  alert: (row) => row.id,
  host: (row) => row.name,
  listener: (row) => `${row.service} ${endpoint(row)}`,
};

/** Return address and port as text. */
export function endpoint({ address, port }) {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

export function keyOf(row) {
  return KEYS[row.row]?.(row) ?? "";
}

export function emptyState() {
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

/** Return whether every kind has been read. */
export function isWhole(state) {
  return KINDS.every((kind) => kind in state.at);
}

/** Set the position of the stream. Returns true if everything must be read again. */
export function setPosition(state, { store, revision, complete }) {
  const restarts = !complete || store !== state.store;
  if (restarts) {
    Object.assign(state, { ...emptyState(), store, changes: state.changes, resolved: state.resolved });
  }
  state.revision = Math.max(state.revision, revision);
  return restarts;
}

/** Set all rows of a kind, true at a revision, and apply the changes that arrived meanwhile. */
export function setRows(state, kind, { revision, rows }) {
  state.rows[kind] = new Map(rows.map((row) => [keyOf(row), row]));
  state.at[kind] = revision;
  state.revision = Math.max(state.revision, revision);
  for (const change of state.waiting) {
    if (change.row.row === kind) apply(state, change);
  }
  state.waiting = state.waiting.filter((change) => !(change.row.row in state.at));
}

/** Apply one committed change. Returns false if too many changes wait and everything must be read again. */
export function applyChange(state, change) {
  state.revision = Math.max(state.revision, change.revision);
  if (!state.changes.some((known) => known.revision === change.revision)) {
    state.changes.push(change);
    if (state.changes.length > CHANGES_MAX) state.changes.shift();
  }
  const kind = change.row.row;
  if (!(kind in state.rows)) return true;
  if (kind in state.at) {
    apply(state, change);
    return true;
  }
  state.waiting.push(change);
  return state.waiting.length <= WAITING_MAX;
}

/** Add the newest entries of the update log, from before the page was opened. */
export function addHistory(state, entries) {
  const known = new Set(state.changes.map((change) => change.revision));
  const older = entries.map((entry) => entry.change).filter((change) => !known.has(change.revision));
  state.changes = [...older, ...state.changes].sort((a, b) => a.revision - b.revision).slice(-CHANGES_MAX);
  for (const change of state.changes) {
    if (change.row.row === "alert" && change.removed) resolve(state, change);
  }
}

function apply(state, change) {
  const { row, removed, revision } = change;
  if (revision <= state.at[row.row]) return;
  if (removed) state.rows[row.row].delete(keyOf(row));
  else state.rows[row.row].set(keyOf(row), row);
  if (row.row === "alert" && removed) resolve(state, change);
}

function resolve(state, { row, time, revision }) {
  if (state.resolved.some((known) => known.revision === revision)) return;
  const all = [...state.resolved, { ...row, closed_at: time, revision }];
  state.resolved = all.sort((a, b) => b.revision - a.revision).slice(0, RESOLVED_MAX);
}
