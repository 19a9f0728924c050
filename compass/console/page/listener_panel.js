// Panel of one listener: its state, actions, users, evidence and attributes.

import { $, badge, h, since } from "./dom.js";
import { endpoint, keyOf } from "./store.js";
import { describeUsers, STATE_MEANS, timestamp } from "./format.js";

const KINDS = { report: "report of", session: "lost session of", probe: "probe by", findings: "probe by" };
const INQUIRIES = {
  suspicion: "A suspicion is being checked.",
  recovery: "It is probed until it recovers.",
  complaint: "A report of slowness is being checked.",
  check: "It is being checked.",
};

export class ListenerPanel {
  #key = "";
  #drawn = "";
  #caseFile = null;
  #impact = null;
  #request = 0;

  constructor(page) {
    this.page = page;
    this.dialog = $("listener-panel");
    this.dialog.onclose = () => {
      this.#key = "";
    };
    // A click outside closes the panel, as Escape does.
    this.dialog.onclick = (event) => event.target === this.dialog && this.dialog.close();
  }

  open(listener) {
    this.#key = keyOf(listener);
    this.#drawn = "";
    this.#caseFile = null;
    this.#impact = null;
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
  }

  draw() {
    if (!this.#key) return;
    const listener = this.page.state.rows.listener.get(this.#key);
    const whole = JSON.stringify(listener ?? null);
    if (whole !== this.#drawn) {
      this.#drawn = whole;
      if (listener) this.#ask(listener);
      this.#put(listener);
    }
  }

  async #ask({ service, address, port }) {
    this.#request += 1;
    const number = this.#request;
    const caught = (error) => ({ refused: error.message });
    const [caseFile, impact] = await Promise.all([
      this.page.api.get("/v1/examine", { service, address, port }).catch(caught),
      this.page.api.get("/v1/impact", { name: service }).catch(caught),
    ]);
    if (number !== this.#request || !this.#key) return;
    this.#caseFile = caseFile;
    this.#impact = impact;
    this.#put(this.page.state.rows.listener.get(this.#key));
  }

  #put(listener) {
    const focused = this.dialog.contains(document.activeElement) ? document.activeElement.id : "";
    const top = this.dialog.scrollTop;
    const close = h("button", { type: "button", id: "listener-panel-close", onclick: () => this.dialog.close() }, "Close");
    if (!listener) {
      this.dialog.replaceChildren(
        h("div", { class: "head" }, h("h2", { id: "listener-panel-title" }, "This listener was removed"), close),
      );
      return;
    }
    const now = this.page.now();
    this.dialog.replaceChildren(
      h(
        "div",
        { class: "head" },
        h("div", {}, h("p", { class: "dim" }, listener.service), h("h2", { id: "listener-panel-title" }, endpoint(listener))),
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
      h("h3", {}, "Users"),
      this.#users(listener),
      h("h3", {}, "Evidence"),
      this.#evidence(now),
      h("h3", {}, "Attributes"),
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
          id: "listener-panel-drain",
          class: draining ? "danger" : "primary",
          onclick: () => this.page.actions.drain(listener, draining),
        },
        draining ? "Drain …" : "Undrain …",
      ),
    );
  }

  #users(listener) {
    const impact = this.#impact;
    if (!impact) return h("p", { class: "dim" }, "Requesting …");
    if (impact.refused) return h("p", { class: "refused" }, impact.refused);
    const { categories, services } = this.page.summary;
    return h("p", {}, describeUsers(impact, categories.get(services.get(listener.service)?.category)).join(" "));
  }

  #evidence(now) {
    const caseFile = this.#caseFile;
    if (!caseFile) return h("p", { class: "dim" }, "Requesting …");
    if (caseFile.refused) return h("p", { class: "refused" }, caseFile.refused);
    const lines = [...(caseFile.evidence ?? [])]
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
      caseFile.judgement
        ? h("p", {}, caseFile.judgement, caseFile.judged_at ? [" (", since(caseFile.judged_at, now), " ago)"] : "")
        : "",
      caseFile.inquiry ? h("p", {}, INQUIRIES[caseFile.inquiry] ?? caseFile.inquiry) : "",
      caseFile.held_until > now
        ? h("p", {}, `It went down ${caseFile.failures} times recently and stays out of use until ${timestamp(caseFile.held_until)}.`)
        : "",
      caseFile.doubting ? h("p", { class: "refused" }, "This server distrusts its own probes: it may be disconnected itself.") : "",
      lines.length
        ? h("ul", { class: "incidents" }, lines)
        : h("p", { class: "dim" }, "This server has no evidence about its health since the start of the server."),
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
    ["Since", timestamp(changed)],
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
