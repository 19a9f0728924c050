// One listener: what it is, what was found out about it, who uses it, and what can be done.

import { $, badge, h, since } from "./dom.js";
import { keyOf, place } from "./store.js";
import { moment, STATE_MEANS, uses } from "./format.js";

const KINDS = { report: "report of", session: "lost session of", probe: "probe by", findings: "probe by" };
const INQUIRIES = {
  suspicion: "A suspicion is being looked into.",
  recovery: "It is probed until it is back.",
  complaint: "A complaint is being looked into.",
  check: "It is being checked.",
};

export class Sheet {
  #key = "";
  #whole = "";
  #file = null;
  #told = null;
  #asked = 0;

  constructor(page) {
    this.page = page;
    this.dialog = $("sheet");
    this.dialog.onclose = () => {
      this.#key = "";
    };
    // A click beside it closes it, as Escape does.
    this.dialog.onclick = (event) => event.target === this.dialog && this.dialog.close();
  }

  open(listener) {
    this.#key = keyOf(listener);
    this.#whole = "";
    this.#file = null;
    this.#told = null;
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
  }

  draw() {
    if (!this.#key) return;
    const listener = this.page.state.rows.listener.get(this.#key);
    const whole = JSON.stringify(listener ?? null);
    if (whole !== this.#whole) {
      this.#whole = whole;
      if (listener) this.#ask(listener);
      this.#put(listener);
    }
  }

  async #ask({ service, address, port }) {
    this.#asked += 1;
    const number = this.#asked;
    const caught = (error) => ({ refused: error.message });
    const [file, told] = await Promise.all([
      this.page.api.get("/v1/examine", { service, address, port }).catch(caught),
      this.page.api.get("/v1/impact", { name: service }).catch(caught),
    ]);
    if (number !== this.#asked || !this.#key) return;
    this.#file = file;
    this.#told = told;
    this.#put(this.page.state.rows.listener.get(this.#key));
  }

  #put(listener) {
    const focused = this.dialog.contains(document.activeElement) ? document.activeElement.id : "";
    const top = this.dialog.scrollTop;
    const close = h("button", { type: "button", id: "sheet-close", onclick: () => this.dialog.close() }, "Close");
    if (!listener) {
      this.dialog.replaceChildren(
        h("div", { class: "head" }, h("h2", { id: "sheet-title" }, "This listener was removed"), close),
      );
      return;
    }
    const now = this.page.now();
    this.dialog.replaceChildren(
      h(
        "div",
        { class: "head" },
        h("div", {}, h("p", { class: "dim" }, listener.service), h("h2", { id: "sheet-title" }, place(listener))),
        close,
      ),
      h(
        "p",
        { class: "now" },
        badge(listener.state),
        h("span", {}, ` ${STATE_MEANS[listener.state]}, for `, since(listener.changed_at, now)),
      ),
      listener.cause ? h("p", { class: "cause-line" }, listener.cause) : "",
      this.#actions(listener),
      h("h3", {}, "Who uses it"),
      this.#users(listener),
      h("h3", {}, "Evidence"),
      this.#evidence(now),
      h("h3", {}, "What it is"),
      facts(listener),
    );
    this.dialog.scrollTop = top;
    if (focused) (document.getElementById(focused) ?? close).focus();
  }

  #actions(listener) {
    if (!this.page.may.has("drain") || listener.state === "offline") return "";
    const draining = !listener.draining;
    return h(
      "p",
      { class: "actions" },
      h(
        "button",
        {
          type: "button",
          id: "sheet-drain",
          class: draining ? "danger" : "primary",
          onclick: () => this.page.acts.drain(listener, draining),
        },
        draining ? "Drain …" : "Undrain …",
      ),
    );
  }

  #users(listener) {
    const told = this.#told;
    if (!told) return h("p", { class: "dim" }, "Asking …");
    if (told.refused) return h("p", { class: "refused" }, told.refused);
    const { categories, services } = this.page.figures;
    return h("p", {}, uses(told, categories.get(services.get(listener.service)?.category)).join(" "));
  }

  #evidence(now) {
    const file = this.#file;
    if (!file) return h("p", { class: "dim" }, "Asking …");
    if (file.refused) return h("p", { class: "refused" }, file.refused);
    const lines = [...(file.evidence ?? [])]
      .reverse()
      .map((one) =>
        h(
          "li",
          {},
          badge(one.alive ? "up" : "down", one.alive ? "alive" : "dead"),
          h(
            "span",
            { class: "what" },
            `${KINDS[one.kind] ?? one.kind} ${one.by}`,
            one.detail ? h("span", { class: "dim" }, `: ${one.detail}`) : "",
          ),
          h("span", { class: "dim" }, since(one.time, now)),
        ),
      );
    return h(
      "div",
      {},
      file.judgement
        ? h("p", {}, file.judgement, file.judged_at ? [" (", since(file.judged_at, now), " ago)"] : "")
        : "",
      file.inquiry ? h("p", {}, INQUIRIES[file.inquiry] ?? file.inquiry) : "",
      file.held_until > now
        ? h("p", {}, `It went down ${file.failures} times lately and stays out until ${moment(file.held_until)}.`)
        : "",
      file.doubting ? h("p", { class: "refused" }, "This server doubts its own probes: it may be cut off itself.") : "",
      lines.length
        ? h("ul", { class: "incidents" }, lines)
        : h("p", { class: "dim" }, "This server has learnt nothing about its health since it started."),
    );
  }
}

function facts(listener) {
  const { host, weight = 1, zone, load, draining, epoch, metadata = {}, changed_at: changed } = listener;
  const pairs = [
    ["Host", host],
    ["Weight", weight],
    ["Zone", zone],
    ["Load", load ? `${Math.round(load * 100)} %` : ""],
    ["Draining", draining ? "yes" : ""],
    ["Since", moment(changed)],
    ["Instance", epoch],
    ...Object.entries(metadata),
  ];
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== undefined && value !== "")
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))),
  );
}
