// Graph of categories with their dependencies and health; the same as a list, for narrow windows and screen readers.

import { $, NARROW, PICTURES, h, icon, s, text } from "./dom.js";
import { amount, count, inUse, registered, STATES } from "./summary.js";
import { layout } from "./graph_layout.js";

const BOX = { height: 44, gapX: 64, gapY: 10 };
const WIDTH_MIN = 142;
const LETTER = 8.4;
const NAME_MAX = 26;
const EDGE = 14;
const SHARE_MIN = 4;
const GRAPH_MAX = 80;
// Categories above which the list is shown first: a drawing of more is unreadable.
const HEALTH = {
  well: "all in use",
  watch: "not all in use",
  ill: "a service has no usable listener",
  none: "nothing registered",
};

export class Graph {
  #drawn = "";
  #shape = "";
  #choice = "";
  #isTouched = false;
  // True once a person has folded or unfolded the panel: then the page does not.

  constructor(page) {
    this.page = page;
    $("as-graph").onclick = () => this.#show("graph");
    $("as-list").onclick = () => this.#show("list");
    this.narrow = matchMedia(NARROW);
    this.narrow.onchange = () => this.draw();
    $("t-map").parentElement.addEventListener("click", () => (this.#isTouched = true));
  }

  get chosen() {
    return this.page.chosenCategory;
  }

  #show(choice) {
    this.#choice = choice;
    this.draw();
  }

  draw() {
    const categories = [...this.page.summary.categories.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    const list = (this.#choice || (this.narrow.matches || categories.length > GRAPH_MAX ? "list" : "graph")) === "list";
    // It is for exploring; in an incident the impact stands above.
    if (!this.#isTouched) $("map").open = !this.narrow.matches && !this.page.groups.length;
    text(
      $("n-map"),
      categories.length ? `${categories.length === 1 ? "1 category" : `${count(categories.length)} categories`}` : "",
    );
    $("graph").hidden = list;
    $("categories").hidden = !list;
    $("as-graph").setAttribute("aria-pressed", !list);
    $("as-list").setAttribute("aria-pressed", list);
    const what = categories.map(({ name, count: number, health, on, backup, lost }) => [
      name,
      number,
      health,
      on,
      backup,
      lost,
    ]);
    const whole = JSON.stringify([list, this.chosen, what]);
    if (whole === this.#drawn) return;
    this.#drawn = whole;
    if (list) this.#list(categories);
    else this.#graph(categories);
  }

  /** Choose a category, whose impact and listeners the page shows then; all if it is chosen again. */
  choose(name) {
    this.page.choose("category", name === this.chosen ? "" : name);
  }

  #list(categories) {
    const rows = categories.map((category) => {
      const { name, count: number, health, on, by, backup } = category;
      const button = h(
        "button",
        {
          type: "button",
          class: "link",
          "aria-pressed": String(name === this.chosen),
          onclick: () => this.choose(name),
        },
        name,
      );
      button.dataset.name = name;
      return h(
        "tr",
        name === this.chosen ? { class: "chosen-row" } : {},
        h("th", { scope: "row" }, icon(PICTURES[health]), button),
        h("td", {}, h("span", { class: "narrow-only" }, "in use "), use(number)),
        h("td", {}, h("span", { class: "narrow-only" }, on.length ? "depends on " : ""), on.join(", ")),
        h("td", {}, h("span", { class: "narrow-only" }, by.length ? "used by " : ""), by.join(", ")),
        h("td", {}, h("span", { class: "narrow-only" }, backup ? "backup " : ""), backup),
      );
    });
    const heads = ["Category", "In use", "Depends on", "Used by", "Backup"].map((head) =>
      h("th", { scope: "col" }, head),
    );
    this.#keep(
      $("categories"),
      h("table", { class: "categories" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows)),
    );
  }

  #graph(categories) {
    const edges = categories.flatMap(({ name, on }) => on.map((other) => [name, other]));
    const longest = Math.max(0, ...categories.map(({ name }) => Math.min(name.length, NAME_MAX)));
    const box = { ...BOX, width: Math.max(WIDTH_MIN, Math.round(longest * LETTER) + 38) };
    const plan = layout(
      categories.map(({ name }) => name),
      edges,
      box,
    );
    const shape = JSON.stringify([...plan.places.keys(), edges]);
    const near = this.#near();
    const width = plan.width + 2 * EDGE;
    const height = plan.height + 2 * EDGE;
    const lines = plan.edges.map(({ from, to, points }) => {
      const on = near && near.has(from) && near.has(to) && (from === this.chosen || to === this.chosen);
      return s("path", {
        d: curve(points, box.width),
        class: `edge${near ? (on ? " near" : " far") : ""}`,
        "marker-end": "url(#tip)",
      });
    });
    const boxes = categories.map((category) => this.#box(category, plan.places.get(category.name), near, box));
    const tip = s(
      "marker",
      { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      s("path", { d: "M0 0.6 7 4 0 7.4z", class: "tip" }),
    );
    const drawing = s(
      "svg",
      {
        width,
        height,
        viewBox: `${-EDGE} ${-EDGE} ${width} ${height}`,
        role: "group",
        "aria-label": "Categories; arrows point to dependencies",
      },
      s("defs", {}, tip),
      s("g", { "aria-hidden": "true" }, lines),
      boxes,
    );
    this.#keep($("graph"), categories.length ? drawing : h("p", { class: "empty" }, "There is no category yet."));
    if (shape !== this.#shape) $("graph").scrollLeft = 0;
    this.#shape = shape;
  }

  /** Return the chosen category with its neighbours, or null if none is chosen. */
  #near() {
    const category = this.page.summary.categories.get(this.chosen);
    return category ? new Set([category.name, ...category.on, ...category.by]) : null;
  }

  #box({ name, count: number, health, on, by, lost, backup }, { x, y }, near, { width, height }) {
    // A label begins with the visible text, for voice control.
    const label =
      `${name} ${use(number)}, ${HEALTH[health]}${lost ? `, ${amount(lost, "service")} without a usable listener` : ""}` +
      `${on.length ? `; depends on ${on.join(", ")}` : ""}${by.length ? `; used by ${by.join(", ")}` : ""}${backup ? `; backup ${backup}` : ""}`;
    const node = s(
      "g",
      {
        class: `node is-${health}${near ? (near.has(name) ? " near" : " far") : ""}${name === this.chosen ? " chosen-node" : ""}`,
        transform: `translate(${x - width / 2} ${y - height / 2})`,
        tabindex: 0,
        role: "button",
        "aria-pressed": String(name === this.chosen),
        "aria-label": label,
      },
      s("rect", { width, height, rx: 8, class: "box" }),
      s("use", {
        href: `#i-${PICTURES[health]}`,
        x: 10,
        y: 7,
        width: 14,
        height: 14,
        class: `icon-${PICTURES[health]}`,
      }),
      s("text", { x: 30, y: 19, class: "name" }, shortened(name, NAME_MAX)),
      " ",
      s("text", { x: 10, y: 33, class: "figure" }, use(number)),
      bar(number, width - 2, height),
    );
    node.dataset.name = name;
    node.addEventListener("click", () => this.choose(name));
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.choose(name);
    });
    return node;
  }

  /** Replace the content of an element, and restore the focus. */
  #keep(element, made) {
    const focused = element.contains(document.activeElement) ? document.activeElement.dataset.name : undefined;
    element.replaceChildren(made);
    if (focused === undefined) return;
    [...element.querySelectorAll("[data-name]")]
      .find((one) => one.dataset.name === focused)
      ?.focus({ preventScroll: true });
  }
}

function use(number) {
  const of = registered(number);
  return of ? `${count(inUse(number))} of ${count(of)}` : "none";
}

function shortened(name, most) {
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

/** Return the shares of the states as a bar along the lower edge of a box. */
function bar(number, width, height) {
  const of = registered(number);
  // Those that died have a place among those that are down.
  const shares = { ...number, down: number.down + number.died };
  const there = STATES.filter((state) => state !== "offline" && shares[state]).reverse();
  // Even one of thousands is visible.
  const left = width - there.length * SHARE_MIN;
  let x = 1;
  return s(
    "g",
    { class: "shares" },
    there.map((state) => {
      const wide = SHARE_MIN + (shares[state] / of) * left;
      x += wide;
      return s("rect", { x: x - wide, y: height - 6, width: wide, height: 4, class: `b-${state}` });
    }),
  );
}

/** Return the path from the right edge of a box through the bends to the left edge of another; or the reverse. */
function curve(points, width) {
  const ahead = points.at(-1).x >= points[0].x ? 1 : -1;
  const half = (width / 2) * ahead;
  const ends = points.map(({ x, y }, number) => ({
    x: number === 0 ? x + half : number === points.length - 1 ? x - half - ahead : x,
    y,
  }));
  let path = `M${ends[0].x} ${ends[0].y}`;
  for (let number = 1; number < ends.length; number += 1) {
    const [from, to] = [ends[number - 1], ends[number]];
    const middle = (from.x + to.x) / 2;
    path += `C${middle} ${from.y} ${middle} ${to.y} ${to.x} ${to.y}`;
  }
  return path;
}
