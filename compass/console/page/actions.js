// What an operator does: each act says first what it will do, to whom, and is then asked of the server, which decides.

import { $, h, text } from "./dom.js";
import { amount } from "./summary.js";
import { place } from "./store.js";
import { drainImpact, purged, some, uses } from "./format.js";

const UNITS = { minutes: 60, hours: 3600, days: 86_400 };
const SAID_MS = 6_000;
const NAMES_MAX = 12;

export class Acts {
  constructor(page) {
    this.page = page;
    this.dialog = $("ask");
  }

  /** Take a listener out of use for new users, or let them come again. */
  async drain(listener, draining) {
    const { figures } = this.page;
    const service = figures.services.get(listener.service);
    const category = figures.categories.get(service.category);
    const impact = drainImpact(listener, draining, service, category, figures.services.get(category?.backup));
    const users = h("p", {}, "Asking who uses it …");
    const names = h("p", { class: "dim names" });
    const word = draining ? "Drain" : "Undrain";
    this.#open(
      `${word} ${place(listener)} of ${listener.service}?`,
      [h("p", { class: `impact ${impact.level}` }, impact.text), users, names],
      word,
      draining,
      async () => {
        const { service: of, address, port } = listener;
        const reply = await this.page.api.post("/v1/drain", { service: of, address, port, draining });
        return `${place(listener)} is ${reply.state} as of revision ${reply.revision}.`;
      },
    );
    try {
      const told = await this.page.api.get("/v1/impact", { name: listener.service });
      text(users, uses(told, category).join(" "));
      text(names, some(told.hosts ?? [], NAMES_MAX));
    } catch (error) {
      text(users, error.message);
    }
  }

  /** Remove the rows of listeners that are gone for long. */
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
    const comes = h("p", { class: "impact watch", role: "status" });
    const age = () => Number(number.value) * UNITS[unit.value];
    const count = () => {
      const rows = purged(this.page.state.rows.listener.values(), state.value, age(), this.page.now());
      const services = new Set(rows.map((row) => row.service));
      text(
        comes,
        rows.length
          ? `This removes ${amount(rows.length, "row")} of ${amount(services.size, "service")}. It cannot be taken back; whoever is alive after all has to register anew.`
          : "There is no such row: nothing would be removed.",
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
    this.#open("Purge listeners that are gone?", [fields, comes], "Purge", true, async () => {
      const reply = await this.page.api.post("/v1/purge", { age_seconds: age(), state: state.value });
      const gone = (reply.changes ?? []).filter(({ row }) => row.row === "listener");
      return `${amount(gone.length, "row")} removed as of revision ${reply.revision}.`;
    });
  }

  #open(title, content, word, isDanger, act) {
    const refused = h("p", { class: "refused", role: "alert" });
    const go = h("button", { type: "submit", class: isDanger ? "danger" : "primary" }, word);
    const cancel = h("button", { type: "button", onclick: () => this.dialog.close() }, "Cancel");
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "ask-title" }, title),
      content,
      refused,
      h("p", { class: "actions" }, cancel, go),
    );
    // What was refused is being put right.
    form.addEventListener("input", () => text(refused, ""));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      go.disabled = true;
      text(refused, "");
      try {
        const outcome = await act();
        this.dialog.close();
        this.#say(outcome);
      } catch (error) {
        text(refused, error.message);
        go.disabled = false;
      }
    });
    this.dialog.replaceChildren(form);
    this.dialog.showModal();
    // What does nothing is where the first key goes.
    cancel.focus();
  }

  #say(outcome) {
    text($("said"), outcome);
    $("said").classList.add("seen");
    clearTimeout(this.saying);
    this.saying = setTimeout(() => $("said").classList.remove("seen"), SAID_MS);
  }
}
