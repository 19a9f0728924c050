// Actions of an operator: each first shows its effect and who is affected, then sends a request to the server.

import { $, h, text } from "./dom.js";
import { amount } from "./summary.js";
import { endpoint } from "./store.js";
import { describeUsers, drainImpact, enumerate, purgeable } from "./format.js";

const UNITS = { minutes: 60, hours: 3600, days: 86_400 };
const OUTCOME_MS = 6_000;
const NAMES_MAX = 12;

export class Actions {
  constructor(page) {
    this.page = page;
    this.dialog = $("ask");
  }

  /** Ask to confirm that a listener gets no new users, or gets them again. */
  async drain(listener, draining) {
    const { summary } = this.page;
    const service = summary.services.get(listener.service);
    const category = summary.categories.get(service.category);
    const impact = drainImpact(listener, draining, service, category, summary.services.get(category?.backup));
    const users = h("p", {}, "Requesting its users …");
    const names = h("p", { class: "dim names" });
    const label = draining ? "Drain" : "Undrain";
    this.#open(
      `${label} ${endpoint(listener)} of ${listener.service}?`,
      [h("p", { class: `impact ${impact.level}` }, impact.text), users, names],
      label,
      draining,
      async () => {
        const { service: of, address, port } = listener;
        const reply = await this.page.api.post("/v1/drain", { service: of, address, port, draining });
        return `${endpoint(listener)} is ${reply.state} as of revision ${reply.revision}.`;
      },
    );
    try {
      const used = await this.page.api.get("/v1/impact", { name: listener.service });
      text(users, describeUsers(used, category).join(" "));
      text(names, enumerate(used.hosts ?? [], NAMES_MAX));
    } catch (error) {
      text(users, error.message);
    }
  }

  /** Ask to confirm the removal of listeners that have been offline or down for long. */
  purge() {
    const state = h(
      "select",
      { id: "purge-state" },
      h("option", { value: "offline" }, "offline"),
      h("option", { value: "down" }, "down"),
    );
    const number = h("input", { id: "purge-age", type: "number", min: 1, value: 1, required: true });
    const unit = h(
      "select",
      { id: "purge-unit", "aria-label": "Unit" },
      Object.keys(UNITS).map((name) => h("option", { value: name, selected: name === "days" }, name)),
    );
    const effect = h("p", { class: "impact watch", role: "status" });
    const age = () => Number(number.value) * UNITS[unit.value];
    const count = () => {
      const rows = purgeable(this.page.state.rows.listener.values(), state.value, age(), this.page.now());
      const services = new Set(rows.map((row) => row.service));
      text(
        effect,
        rows.length
          ? `This removes ${amount(rows.length, "row")} of ${amount(services.size, "service")}. It cannot be undone; a listener that is alive after all has to register again.`
          : "No row matches: nothing would be removed.",
      );
    };
    for (const field of [state, number, unit]) field.addEventListener("input", count);
    count();
    const fields = h(
      "p",
      { class: "fields" },
      h("label", { for: "purge-state" }, "Remove listeners that are"),
      state,
      h("label", { for: "purge-age" }, "for more than"),
      number,
      unit,
    );
    this.#open("Purge listeners?", [fields, effect], "Purge", true, async () => {
      const reply = await this.page.api.post("/v1/purge", { age_seconds: age(), state: state.value });
      const removed = (reply.changes ?? []).filter(({ row }) => row.row === "listener");
      return `${amount(removed.length, "row")} removed as of revision ${reply.revision}.`;
    });
  }

  #open(title, content, label, isDanger, run) {
    const refused = h("p", { class: "refused", role: "alert" });
    const go = h("button", { type: "submit", class: isDanger ? "danger" : "primary" }, label);
    const cancel = h("button", { type: "button", onclick: () => this.dialog.close() }, "Cancel");
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "ask-title" }, title),
      content,
      refused,
      h("p", { class: "actions" }, cancel, go),
    );
    // Input corrects a refused request.
    form.addEventListener("input", () => text(refused, ""));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      go.disabled = true;
      text(refused, "");
      try {
        const outcome = await run();
        this.dialog.close();
        this.showOutcome(outcome);
      } catch (error) {
        text(refused, error.message);
        go.disabled = false;
      }
    });
    this.dialog.replaceChildren(form);
    this.dialog.showModal();
    // The first key press must have no effect.
    cancel.focus();
  }

  /** Show a text that has to be selected by hand. */
  showText(title, words) {
    const field = h("textarea", { readonly: true, rows: 12, "aria-label": title }, words);
    const close = h("button", { type: "button", onclick: () => this.dialog.close() }, "Close");
    this.dialog.replaceChildren(h("h2", { id: "ask-title" }, title), field, h("p", { class: "actions" }, close));
    this.dialog.showModal();
    field.select();
  }

  /** Show a sentence at the edge of the page for some seconds. */
  showOutcome(outcome) {
    text($("outcome"), outcome);
    $("outcome").classList.add("seen");
    clearTimeout(this.outcomeTimer);
    this.outcomeTimer = setTimeout(() => $("outcome").classList.remove("seen"), OUTCOME_MS);
  }
}
