// Log: changes as they happen, and on demand refused requests and requests of administrators.

import { $, h, since, text } from "./dom.js";
import { count } from "./summary.js";
import { describeChange } from "./format.js";

const SHOWN_MAX = 150;
const READ_MS = 5_000;
const ENTRIES = 100;

export class Log {
  #kind = "updates";
  #drawn = "";
  #entries = [];
  #readAt = 0;

  constructor(page) {
    this.page = page;
    this.buttons = Object.fromEntries(
      ["updates", "security", "administration"].map((kind) => [kind, $(`log-${kind}`)]),
    );
    for (const [kind, button] of Object.entries(this.buttons)) {
      button.onclick = () => {
        this.#kind = kind;
        this.#entries = [];
        this.#readAt = 0;
        $("log-list").scrollTop = 0;
        this.draw();
      };
    }
  }

  draw() {
    text($("n-log"), this.page.state.revision ? `revision ${count(this.page.state.revision)}` : "");
    for (const [kind, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", kind === this.#kind);
    if (this.#kind === "updates") this.#changes();
    else this.#read(this.#kind);
  }

  #changes() {
    const { changes } = this.page.state;
    const { logTrouble } = this.page.sync;
    const shown = changes.slice(-SHOWN_MAX).reverse();
    this.#put(
      `updates ${changes.at(-1)?.revision} ${changes[0]?.revision} ${logTrouble}`,
      shown.map((change) => {
        const { what, of, now, why } = describeChange(change);
        return this.#line(change.time, change.revision, what, [
          of,
          now && h("span", { class: `word s-${now}` }, now),
          why && h("span", { class: "dim" }, why),
        ]);
      }),
      logTrouble ? `The log cannot be read: ${logTrouble}` : "There is no change yet.",
    );
  }

  async #read(kind) {
    if (Date.now() - this.#readAt < READ_MS) return;
    this.#readAt = Date.now();
    try {
      this.#entries = await this.page.api.entries(kind, ENTRIES);
    } catch (error) {
      this.#put(`refused ${error.message}`, [], `The log cannot be read: ${error.message}`);
      return;
    }
    if (kind !== this.#kind) return;
    const lines = [...this.#entries]
      .reverse()
      .map((entry) =>
        this.#line(entry.time, entry.number, entry.operation, [
          entry.subject,
          h("span", { class: "word" }, entry.principal || entry.origin || ""),
          h("span", { class: "dim" }, kind === "security" ? entry.reason : entry.outcome),
        ]),
      );
    const none = kind === "security" ? "No request was refused." : "There is no request of an administrator yet.";
    this.#put(`${kind} ${this.#entries.at(-1)?.number}`, lines, none);
  }

  #line(time, number, what, parts) {
    return h(
      "li",
      {},
      h("span", { class: "when" }, since(time, this.page.now(), "moment")),
      h("b", {}, what),
      h(
        "span",
        { class: "parts" },
        parts.filter(Boolean).flatMap((part) => [part, " "]),
      ),
      h("span", { class: "dim number" }, `#${number}`),
    );
  }

  #put(key, lines, none) {
    if (key === this.#drawn) return;
    this.#drawn = key;
    $("log-list").replaceChildren(...(lines.length ? lines : [h("li", { class: "empty" }, none)]));
  }
}
