// Synchronization with the server: the stream of changes, the rows at its start, and periodic requests.
//
// The stream is opened first and the rows are read afterwards (see store.js). A broken stream resumes after the last
// received revision; everything is read again only if the server no longer has that revision.

import { Refusal } from "./api.js";
import { addHistory, applyChange, KINDS, setPosition, setRows } from "./store.js";

const PATHS = { category: "categories", dependency: "dependencies" };
const PAGE = 10_000;
// Rows of one request: some 2 MB of listeners.
const READ_TRIES = 3;
// Attempts to read a list whose pages change meanwhile; then the pages are used as they are, and changes correct them.
const LOG_ENTRIES = 100;
const PAUSE_MS = 500;
const PAUSE_MAX_MS = 10_000;
const POLL_MS = 4_000;
// Interval of requests for sessions and lag, which are not in the log.

export class Sync {
  condition = "connecting";
  status = null;
  lags = [];
  receivedAt = 0;
  trouble = "";
  statusTrouble = "";
  // Why status and lag could not be read at the last attempt; empty: they could.
  logTrouble = "";
  // Why the log of changes has not been read; empty: it has been, or is being read.
  #last = null;
  #turn = 0;
  #stop = new AbortController();

  /** `onChange()`: something has changed. `onRefused(refusal)`: access was withdrawn. */
  constructor(api, state, { onChange, onRefused }) {
    this.api = api;
    this.state = state;
    this.onChange = onChange;
    this.onRefused = onRefused;
  }

  start() {
    this.#stream();
    this.#pollLoop();
  }

  stop() {
    this.#stop.abort();
  }

  get #ended() {
    return this.#stop.signal.aborted;
  }

  async #stream() {
    for (let pause = PAUSE_MS; !this.#ended; pause = Math.min(pause * 2, PAUSE_MAX_MS)) {
      try {
        await this.api.stream(this.#last, {
          signal: this.#stop.signal,
          onOpen: () => {
            pause = PAUSE_MS;
            this.trouble = "";
          },
          onSign: () => this.#live(),
          onEvent: (kind, data) => this.#event(kind, data),
        });
      } catch (error) {
        if (this.#isRefused(error)) return;
        this.trouble = error instanceof Refusal ? error.message : "";
      }
      if (this.#ended) return;
      this.condition = this.receivedAt ? "reconnecting" : "connecting";
      this.onChange();
      // Random, so that not all consoles reconnect at the same moment.
      await this.#wait(pause * (0.5 + Math.random()));
    }
  }

  #live() {
    this.receivedAt = Date.now();
    if (this.condition !== "live") {
      this.condition = "live";
      this.onChange();
    }
  }

  #event(kind, data) {
    if (kind === "position") {
      if (setPosition(this.state, data)) this.#read();
    } else if (kind === "change" && !applyChange(this.state, data)) {
      this.#read();
    }
    this.#last = data.revision;
    this.onChange();
  }

  /** Read everything. A later call cancels an earlier one. */
  async #read() {
    this.#turn += 1;
    const turn = this.#turn;
    const rest = new Set([...KINDS, "log"]);
    for (
      let pause = PAUSE_MS;
      rest.size && turn === this.#turn && !this.#ended;
      pause = Math.min(pause * 2, PAUSE_MAX_MS)
    ) {
      const tried = await Promise.allSettled([...rest].map((kind) => this.#readOne(kind, turn, rest)));
      const failed = tried.find((one) => one.status === "rejected");
      if (!failed || this.#isRefused(failed.reason)) return;
      this.trouble = failed.reason.message;
      await this.#wait(pause);
    }
  }

  async #readOne(kind, turn, rest) {
    const got = kind === "log" ? await this.#log() : await this.#all(kind);
    if (turn !== this.#turn) return;
    if (kind === "log") addHistory(this.state, got);
    else setRows(this.state, kind, got);
    rest.delete(kind);
    this.onChange();
  }

  /** Return the newest changes; the page says if they cannot be read. */
  async #log() {
    try {
      const entries = await this.api.entries("updates", LOG_ENTRIES);
      this.logTrouble = "";
      return entries;
    } catch (error) {
      this.logTrouble = error.message;
      this.onChange();
      throw error;
    }
  }

  /** Return all rows of a kind. If the list changes between two pages, reading starts again. */
  async #all(kind) {
    const path = `/v1/${PATHS[kind] ?? `${kind}s`}`;
    for (let tries = 1; ; tries += 1) {
      const first = await this.api.get(path, { limit: PAGE });
      const rows = first.rows;
      let same = true;
      for (let { cursor } = first; cursor && same; ) {
        const next = await this.api.get(path, { limit: PAGE, cursor });
        same = tries >= READ_TRIES || next.revision === first.revision;
        cursor = next.cursor;
        rows.push(...next.rows);
      }
      if (same) return { revision: first.revision, rows };
    }
  }

  async #pollLoop() {
    while (!this.#ended) {
      await this.poll();
      await this.#wait(POLL_MS);
    }
  }

  /** Return the lag of all hosts, from all pages. */
  async #lags() {
    let page = await this.api.get("/v1/lag");
    const hosts = page.hosts;
    while (page.cursor) {
      page = await this.api.get("/v1/lag", { cursor: page.cursor });
      hosts.push(...page.hosts);
    }
    return hosts;
  }

  /** Request status and lag, which are not in the log. */
  async poll() {
    try {
      const [status, lags] = await Promise.all([this.api.get("/v1/status"), this.#lags()]);
      const known = this.status?.trouble && status.trouble ? this.status.trouble_since : 0;
      // The beginning stays what it was: each answer is late by a different fraction of a second.
      const since = status.trouble_seconds ? known || Date.now() / 1000 - status.trouble_seconds : 0;
      this.status = { ...status, trouble_since: since };
      this.lags = lags;
      this.statusTrouble = "";
      this.#check(status);
      this.onChange();
    } catch (error) {
      if (this.#isRefused(error)) return;
      this.statusTrouble = error.message;
      this.onChange();
    }
  }

  /** Compare this copy with the server's row counts at the same revision, and read everything again if they differ. */
  #check({ revision, counts }) {
    if (revision !== this.state.revision) return;
    const wrong = KINDS.some((kind) => kind in this.state.at && this.state.rows[kind].size !== (counts[kind] ?? 0));
    if (!wrong) return;
    this.state.at = {};
    this.#read();
  }

  #isRefused(error) {
    const refused = error instanceof Refusal && (error.status === 401 || error.status === 403);
    if (refused && !this.#ended) {
      this.stop();
      this.onRefused(error);
    }
    return refused;
  }

  #wait(milliseconds) {
    return new Promise((done) => {
      const timer = setTimeout(done, milliseconds);
      this.#stop.signal.addEventListener("abort", () => {
        clearTimeout(timer);
        done();
      });
    });
  }
}
