// The list of listeners by service. Only the rows in sight are drawn.

import { $, PICTURES, badge, h, icon, since, text } from "./dom.js";
import { amount, condition, count, inUse, listing, NEVER, registered, STATES } from "./summary.js";
import { VirtualList } from "./virtual_list.js";
import { endpoint } from "./store.js";
import { origin, STATE_MEANS } from "./format.js";

const TYPING_MS = 120;

export function cell(kind, ...children) {
  return h("span", { role: "cell", class: kind }, ...children);
}

export class ListenerList {
  #states = new Set();
  #words = "";
  #opened = new Set();
  category = "";

  constructor(page) {
    this.page = page;
    this.rows = new VirtualList($("listener-list"), $("listener-rows"), {
      make: (entry) => h("div", { role: "row", class: entry.listener ? "row l" : "row service" }),
      update: (element, entry) => {
        if (entry.listener) this.#listener(element, entry);
        else if (entry.service) this.#service(element, entry);
        else this.#never(element, entry);
      },
    });
    this.#tools();
  }

  #tools() {
    let timer;
    $("filter").value = "";
    $("filter").oninput = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.filter($("filter").value), TYPING_MS);
    };
    this.chips = new Map(
      STATES.map((state) => {
        const number = h("b", {}, "0");
        const chip = h(
          "button",
          { type: "button", class: "chip", "aria-pressed": "false", title: STATE_MEANS[state] },
          badge(state),
          number,
        );
        chip.addEventListener("click", () => {
          if (!this.#states.delete(state)) this.#states.add(state);
          chip.setAttribute("aria-pressed", this.#states.has(state));
          this.#restart();
        });
        return [state, { chip, number }];
      }),
    );
    $("states").replaceChildren(...[...this.chips.values()].map(({ chip }) => chip));
    $("purge").onclick = () => this.page.actions.purge();
  }

  filter(words) {
    this.#words = words;
    $("filter").value = words;
    this.#restart();
  }

  /** Show only the services of a category; all if the name is empty. */
  within(category) {
    this.category = category;
    this.#restart();
  }

  #restart() {
    $("listener-list").scrollTop = 0;
    this.draw();
  }

  draw() {
    const { summary, state } = this.page;
    // A row can be purged only in these states; without any, there is nothing to offer.
    $("purge").hidden = !this.page.may.has("purge") || !(summary.total.offline + summary.total.down);
    for (const [name, { number, chip }] of this.chips) {
      text(number, count(summary.total[name]));
      chip.classList.toggle("zero", !summary.total[name]);
    }
    const { entries, shown, all } = listing(summary, {
      words: this.#words,
      states: [...this.#states],
      category: this.category,
      opened: this.#opened,
    });
    const here = this.category ? ` of ${this.category}` : "";
    text(
      $("n-listeners"),
      "listener" in state.at
        ? `${shown === all ? count(all) : `${count(shown)} of ${count(all)}`}${here}`
        : "reading …",
    );
    $("listener-table").setAttribute("aria-rowcount", entries.length + 1);
    this.rows.show(entries);
    $("no-listeners").hidden = entries.length > 0 || !("listener" in state.at);
    text(
      $("no-listeners"),
      state.rows.service.size ? "No listener matches." : "There is no service yet: opengnsadmin apply topology.toml",
    );
  }

  #service(element, { service, folded, open }) {
    const { count: number, id, category } = service;
    const of = registered(number);
    const backup = this.page.summary.categories.get(category)?.backup;
    const well = condition(service);
    const sum = of
      ? `${count(inUse(number))} of ${count(of)} in use`
      : well === "gone"
        ? "all deregistered"
        : "no listener yet";
    const whole = `${id} ${sum} ${well} ${backup} ${folded} ${open}`;
    if (element.dataset.whole === whole) return;
    element.dataset.whole = whole;
    const had = element.contains(document.activeElement);
    const unfolds = folded ? this.#fold(id, open, `${count(folded)} up`, `${count(folded)} up of ${id}`) : "";
    element.replaceChildren(
      h(
        "span",
        { role: "cell", "aria-colspan": 5 },
        icon(PICTURES[well]),
        h("b", {}, id),
        h("span", { class: "sum" }, sum),
        backup && backup !== id && well !== "none" && !inUse(number)
          ? h("span", { class: "backup" }, `users go to ${backup}`)
          : "",
        unfolds,
      ),
    );
    if (had) element.querySelector("button")?.focus({ preventScroll: true });
  }

  #fold(key, open, words, label) {
    const fold = () => {
      if (!this.#opened.delete(key)) this.#opened.add(key);
      this.draw();
    };
    const attributes = {
      type: "button",
      class: "link fold",
      "aria-expanded": String(open),
      "aria-label": label,
      onclick: fold,
    };
    return h("button", attributes, words);
  }

  #never(element, { never, open }) {
    const whole = `${never} ${open}`;
    if (element.dataset.whole === whole) return;
    element.dataset.whole = whole;
    const had = element.contains(document.activeElement);
    const words = `${amount(never, "service")} without any listener yet`;
    const fold = this.#fold(NEVER, open, open ? "hide" : "show", `${open ? "hide" : "show"} ${words}`);
    element.replaceChildren(
      h("span", { role: "cell", "aria-colspan": 5 }, icon("none"), h("span", { class: "sum" }, words), fold),
    );
    if (had) element.querySelector("button")?.focus({ preventScroll: true });
  }

  #listener(element, { listener }) {
    const died = this.page.summary.services.get(listener.service)?.died.has(listener);
    const { host, by } = origin(listener, this.page.state);
    const whole = `${died} ${listener.state} ${listener.changed_at} ${listener.cause} ${host} ${by} ${listener.draining}`;
    if (element.dataset.whole === whole) return;
    element.dataset.whole = whole;
    const had = element.contains(document.activeElement);
    const { cause = "", changed_at: changed, draining } = listener;
    // Shown as what it is: a listener that failed, though its row is that of an offline one.
    const state = died ? "down" : listener.state;
    const cells = [
      cell(
        "state",
        died ? badge("down", "died") : badge(state),
        draining && state !== "draining" ? h("span", { class: "dim" }, " draining") : "",
      ),
      cell(
        "place",
        h(
          "button",
          {
            type: "button",
            class: "link",
            "aria-label": `${endpoint(listener)} of ${listener.service}, ${state}`,
            onclick: () => this.page.panel.open(listener),
          },
          endpoint(listener),
        ),
      ),
      cell("host", host || (by ? h("span", { title: `registered by ${by}, on no host` }, `by ${by}`) : "")),
      cell("cause", h("span", { title: cause }, cause)),
      cell("age", since(changed, this.page.now(), "both")),
    ];
    element.className = `row l is-${state}`;
    element.replaceChildren(...cells);
    if (had) element.querySelector("button").focus({ preventScroll: true });
  }
}
