// The server's HTTPS API as the console uses it (docs/reference/http.md).

import { EventReader } from "./events.js";

const SILENT_MS = 40_000;
// The server writes a comment every 15 s on a silent stream; without two of them the connection is dead.
const ANSWER_MS = 30_000;
// Time limit of a request.

/** Refused request. `message` is the server's, with advice. */
export class Refusal extends Error {
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

export class Api {
  #token;
  /** Callback with the server's time in milliseconds, called for each answer that contains it. */
  onTime = () => {};

  /** Without a token the browser may show a client certificate. */
  constructor(token = "") {
    this.#token = token;
  }

  get(path, query = {}) {
    const fields = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""));
    return this.#ask(fields.size ? `${path}?${fields}` : path, {});
  }

  /** Return the last entries of a log, from all pages. */
  async entries(log, last) {
    const path = `/v1/logs/${log}`;
    let page = await this.get(path, { last });
    const entries = page.entries;
    while (page.more) {
      page = await this.get(path, { after: entries.at(-1).number });
      entries.push(...page.entries);
    }
    return entries;
  }

  post(path, fields) {
    return this.#ask(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
    });
  }

  /** Deliver events until the stream ends. Rejects with a Refusal, or with the error of the connection. */
  async stream(last, { onOpen, onEvent, onSign, signal }) {
    const own = new AbortController();
    const stop = () => own.abort();
    signal.addEventListener("abort", stop);
    let watchdog = setTimeout(stop, SILENT_MS);
    try {
      const headers = last === null ? {} : { "Last-Event-ID": String(last) };
      const response = await this.#fetch("/v1/events", { headers, signal: own.signal });
      onOpen();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const events = new EventReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(watchdog);
        watchdog = setTimeout(stop, SILENT_MS);
        onSign();
        for (const event of events.feed(value)) onEvent(event.event, JSON.parse(event.data));
      }
    } finally {
      clearTimeout(watchdog);
      signal.removeEventListener("abort", stop);
      own.abort();
    }
  }

  async #ask(path, options) {
    const response = await this.#fetch(path, { ...options, signal: AbortSignal.timeout(ANSWER_MS) });
    return response.json();
  }

  async #fetch(path, { headers = {}, ...options }) {
    const proof = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    // No part of a catalogue may stay on this machine's disk.
    const request = { cache: "no-store", credentials: "same-origin", redirect: "error", ...options };
    const response = await fetch(path, { ...request, headers: { ...headers, ...proof } });
    const date = Date.parse(response.headers.get("Date") ?? "");
    if (date) this.onTime(date);
    if (response.ok) return response;
    const body = await response.json().catch(() => ({}));
    throw new Refusal(body.code ?? "", body.message ?? `the server answered ${response.status}`, response.status);
  }
}
