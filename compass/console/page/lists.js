// The two long lists: services with their listeners, and hosts. Each draws only the rows in sight.

import { $, badge, h, icon, since, text } from "./dom.js";
import { amount, condition, count, inUse, listing, registered, STATES } from "./summary.js";
import { VirtualList } from "./virtual_list.js";
import { endpoint } from "./store.js";
import { HOST_MEANS, STATE_MEANS } from "./format.js";

const PICTURES = {
  current: "up",
  dialled: "up",
  lagging: "slow",
  gap: "suspect",
  lost: "down",
  unknown: "offline",
  barred: "none",
};
const HEALTH_PICTURES = { well: "up", watch: "suspect", ill: "down", none: "none", gone: "offline" };
const TYPING_MS = 120;

function cell(kind, ...children) {
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
      make: (entry) => h("div", { role: "row", class: entry.service ? "row service" : "row l" }),
      update: (element, entry) => (entry.service ? this.#service(element, entry) : this.#listener(element, entry)),
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
        : "none registered";
    const whole = `${id} ${sum} ${well} ${backup} ${folded} ${open}`;
    if (element.dataset.whole === whole) return;
    element.dataset.whole = whole;
    const had = element.contains(document.activeElement);
    const fold = () => {
      if (!this.#opened.delete(id)) this.#opened.add(id);
      this.draw();
    };
    const unfolds = folded
      ? h(
          "button",
          {
            type: "button",
            class: "link fold",
            "aria-expanded": String(open),
            "aria-label": `${count(folded)} up of ${id}`,
            onclick: fold,
          },
          `${count(folded)} up`,
        )
      : "";
    element.replaceChildren(
      h(
        "span",
        { role: "cell", "aria-colspan": 5 },
        icon(HEALTH_PICTURES[well]),
        h("b", {}, id),
        h("span", { class: "sum" }, sum),
        backup && backup !== id && (well === "ill" || well === "gone")
          ? h("span", { class: "backup" }, `users go to ${backup}`)
          : "",
        unfolds,
      ),
    );
    if (had) element.querySelector("button")?.focus({ preventScroll: true });
  }

  #listener(element, { listener }) {
    const died = this.page.summary.services.get(listener.service)?.died.has(listener);
    const whole = `${died} ${listener.state} ${listener.changed_at} ${listener.cause} ${listener.host} ${listener.draining}`;
    if (element.dataset.whole === whole) return;
    element.dataset.whole = whole;
    const had = element.contains(document.activeElement);
    const { host = "", cause = "", changed_at: changed, draining } = listener;
    // Shown as what it is: a listener that failed, though its row is that of an offline one.
    const state = died ? "down" : listener.state;
    const cells = [
      cell("state", died ? badge("down", "died") : badge(state), draining && state !== "draining" ? h("span", { class: "dim" }, " draining") : ""),
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
      cell("host", host),
      cell("cause", h("span", { title: cause }, cause)),
      cell("num age", since(changed, this.page.now())),
    ];
    element.className = `row l is-${state}`;
    element.replaceChildren(...cells);
    if (had) element.querySelector("button").focus({ preventScroll: true });
  }
}

export class HostList {
  constructor(page) {
    this.page = page;
    this.rows = new VirtualList($("host-list"), $("host-rows"), {
      make: () => h("div", { role: "row", class: "row t" }),
      update: (element, host) => this.#host(element, host),
    });
  }

  draw() {
    const hosts = this.page.hostRows;
    const lagging = hosts.filter(({ condition }) => condition === "lagging" || condition === "gap").length;
    const connected = hosts.filter(({ lag }) => lag.session).length;
    text(
      $("n-hosts"),
      hosts.length
        ? `${count(connected)} of ${count(hosts.length)} connected, ${lagging ? count(lagging) : "none"} lagging`
        : "",
    );
    $("host-table").setAttribute("aria-rowcount", hosts.length + 1);
    $("no-hosts").hidden = hosts.length > 0;
    this.rows.show(hosts);
  }

  #host(element, { name, lag, condition, listeners }) {
    const whole = `${condition} ${lag.acknowledged} ${lag.pending} ${lag.server} ${listeners}`;
    if (element.dataset.whole === whole) return;
    element.dataset.whole = whole;
    const had = element.contains(document.activeElement);
    const show = () => {
      this.page.listeners.within("");
      this.page.graph.choose("");
      this.page.listeners.filter(name);
      $("listeners").scrollIntoView({ block: "nearest" });
    };
    element.replaceChildren(
      cell(
        "place",
        h(
          "button",
          {
            type: "button",
            class: "link",
            "aria-label": `${name}: show its ${amount(listeners, "listener")}`,
            onclick: show,
          },
          name,
        ),
      ),
      cell(
        "state",
        h(
          "span",
          { class: `badge s-${PICTURES[condition]}`, title: lag.server ? `session with ${lag.server}` : "" },
          icon(PICTURES[condition]),
          HOST_MEANS[condition],
        ),
      ),
      cell("num", lag.acknowledged ? count(lag.acknowledged) : "–"),
      cell("num", count(lag.pending)),
    );
    if (had) element.querySelector("button").focus({ preventScroll: true });
  }
}
