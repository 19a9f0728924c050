// Staying up to date: the stream of changes, the readings at its start, and what is asked again and again.
//
// The stream is opened first and the rows are read afterwards (see store.js). When it breaks, it resumes after the last
// revision that came; only when the server says that this is too far back is everything read again.

import { Refusal } from "./api.js";
import { change, KINDS, past, position, reading } from "./store.js";

const PATHS = { category: "categories", dependency: "dependencies" };
const PAGE = 10_000;
// Rows a request: some 2 MB of listeners.
const READ_TRIES = 3;
// A list that keeps changing while it is paged is taken as it is after so many; changes are laid over it anyway.
const LOG_ENTRIES = 100;
const PAUSE_MS = 500;
const PAUSE_MAX_MS = 10_000;
const POLL_MS = 4_000;
// Sessions and lag are in no log, so they are asked for.

export class Following {
  condition = "connecting";
  status = null;
  lags = [];
  newsAt = 0;
  trouble = "";
  #last = null;
  #turn = 0;
  #stop = new AbortController();

  /** `onNews()`: something is different. `onOut(refusal)`: whoever looks may not look any more. */
  constructor(api, state, { onNews, onOut }) {
    this.api = api;
    this.state = state;
    this.onNews = onNews;
    this.onOut = onOut;
  }

  start() {
    this.#stream();
    this.#poll();
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
        if (this.#out(error)) return;
        this.trouble = error instanceof Refusal ? error.message : "";
      }
      if (this.#ended) return;
      this.condition = this.newsAt ? "reconnecting" : "connecting";
      this.onNews();
      // Not all consoles come back at the same moment.
      await this.#wait(pause * (0.5 + Math.random()));
    }
  }

  #live() {
    this.newsAt = Date.now();
    if (this.condition !== "live") {
      this.condition = "live";
      this.onNews();
    }
  }

  #event(kind, data) {
    if (kind === "position") {
      if (position(this.state, data)) this.#read();
    } else if (kind === "change" && !change(this.state, data)) {
      this.#read();
    }
    this.#last = data.revision;
    this.onNews();
  }

  /** Read everything, small things first; of two readings the later one counts. */
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
      if (!failed || this.#out(failed.reason)) return;
      this.trouble = failed.reason.message;
      await this.#wait(pause);
    }
  }

  async #readOne(kind, turn, rest) {
    const got = kind === "log" ? await this.api.get("/v1/logs/updates", { last: LOG_ENTRIES }) : await this.#all(kind);
    if (turn !== this.#turn) return;
    if (kind === "log") past(this.state, got.entries);
    else reading(this.state, kind, got);
    rest.delete(kind);
    this.onNews();
  }

  /** All rows of a kind. Pages of a list that changed meanwhile do not fit together, so it is begun again. */
  async #all(kind) {
    const path = `/v1/${PATHS[kind] ?? `${kind}s`}`;
    for (let tries = 1; ; tries += 1) {
      const first = await this.api.get(path, { limit: PAGE });
      const rows = first.rows;
      let same = true;
      while (rows.length < first.total && same) {
        const next = await this.api.get(path, { limit: PAGE, after: rows.length });
        same = tries >= READ_TRIES || next.revision === first.revision;
        if (!next.rows.length) break;
        rows.push(...next.rows);
      }
      if (same) return { revision: first.revision, rows };
    }
  }

  async #poll() {
    while (!this.#ended) {
      await this.look();
      await this.#wait(POLL_MS);
    }
  }

  /** Ask at once for what is in no log. */
  async look() {
    try {
      const [status, lag] = await Promise.all([this.api.get("/v1/status"), this.api.get("/v1/lag")]);
      this.status = status;
      this.lags = lag.hosts;
      this.#check(status);
      this.onNews();
    } catch (error) {
      this.#out(error);
    }
  }

  /** The server's own count at a revision shows whether this copy is right; if not, it is read again. */
  #check({ revision, counts }) {
    if (revision !== this.state.revision) return;
    const wrong = KINDS.some((kind) => kind in this.state.at && this.state.rows[kind].size !== (counts[kind] ?? 0));
    if (!wrong) return;
    this.state.at = {};
    this.#read();
  }

  #out(error) {
    const out = error instanceof Refusal && (error.status === 401 || error.status === 403);
    if (out && !this.#ended) {
      this.stop();
      this.onOut(error);
    }
    return out;
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
