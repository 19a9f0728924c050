// Panel of the impact of what is lost or chosen: a graph from the services to those who depend on them. Narrow windows
// show the same as a list.

import { $, NARROW, PICTURES, h, icon, s, text } from "./dom.js";
import { amount, count } from "./summary.js";
import { describeImpact, impactOf } from "./impact.js";
import { enumerate } from "./format.js";

const BOX_HEIGHT = 42;
const GAP_Y = 8;
const GAP_X = 34;
const WIDTH_MAX = 220;
const WIDTH_MIN = 200;
const TOP = 20;
const BOXES_MAX = 6;
// Boxes of a column; the last one stands for all others. The list has all of them.
const LETTER = 7.6;
const COLUMNS = ["", "Depends on it", "Depends on those"];

export class ImpactView {
  #drawn = "";

  constructor(page) {
    this.page = page;
    this.narrow = matchMedia(NARROW);
    this.narrow.onchange = () => this.draw();
    this.width = 0;
    new ResizeObserver(() => this.#resized()).observe($("impact-graph").parentElement);
    $("impact-all").onclick = () => page.choose("", "");
  }

  #resized() {
    const width = $("impact-graph").parentElement.clientWidth;
    if (Math.abs(width - this.width) < 2) return;
    this.width = width;
    this.draw();
  }

  draw() {
    const { subject, state, summary } = this.page;
    $("impact").hidden = !subject;
    if (!subject) return;
    const impact = impactOf(state, summary, subject.services);
    const list = this.narrow.matches;
    const whole = JSON.stringify([impact, subject, list, this.width]);
    if (whole === this.#drawn) return;
    this.#drawn = whole;
    text($("n-impact"), `of ${subject.title}`);
    $("impact-all").hidden = !subject.chosen;
    text($("impact-text"), subject.services.length ? describeImpact(impact).join(" ") : "It concerns no listener.");
    // Before it is laid out, the panel has no width to draw in.
    if (!list && this.width < WIDTH_MIN) return;
    const drawing = list ? this.#list(impact) : this.#graph(impact, this.width - 28);
    const focused = $("impact-graph").contains(document.activeElement) ? document.activeElement.dataset.key : "";
    $("impact-graph").replaceChildren(drawing);
    if (focused)
      [...$("impact-graph").querySelectorAll("[data-key]")]
        .find((one) => one.dataset.key === focused)
        ?.focus({ preventScroll: true });
  }

  #columns({ lost, users }) {
    const services = lost.map(({ id, health, inUse, of }) => ({
      key: id,
      name: id,
      health,
      figure: of ? `${count(inUse)} of ${count(of)} in use` : "no listener",
      from: [],
    }));
    const user = ({ category, services: own, hosts, through, on, depth, health }) => ({
      key: category,
      name: category,
      health,
      figure: hosts.length
        ? `${amount(own.length, "service")}, ${amount(hosts.length, "host")}`
        : amount(own.length, "service"),
      through,
      from: depth === 1 ? through : on,
    });
    return [
      services,
      users.filter(({ depth }) => depth === 1).map(user),
      users.filter(({ depth }) => depth > 1).map(user),
    ];
  }

  #graph(impact, width) {
    const columns = this.#columns(impact).filter((column, number) => number < 2 || column.length);
    const wide = Math.min(WIDTH_MAX, Math.floor((width - GAP_X * (columns.length - 1)) / columns.length));
    const places = new Map();
    const shown = columns.map((column) => {
      if (column.length <= BOXES_MAX) return column;
      const rest = column.slice(BOXES_MAX - 1);
      const from = [...new Set(rest.flatMap((one) => one.from))];
      return [
        ...column.slice(0, BOXES_MAX - 1),
        { key: "", name: `${rest.length} more`, figure: "", health: "", from, rest },
      ];
    });
    const tallest = Math.max(...shown.map((column) => column.length), 1);
    const height = TOP + tallest * (BOX_HEIGHT + GAP_Y) - GAP_Y + 4;
    shown.forEach((column, at) => {
      const top = TOP + ((tallest - column.length) * (BOX_HEIGHT + GAP_Y)) / 2;
      column.forEach((box, row) => {
        const place = { x: 1 + at * (wide + GAP_X), y: top + row * (BOX_HEIGHT + GAP_Y), at };
        box.place = place;
        for (const { key } of box.rest ?? [box]) places.set(key, place);
      });
    });
    const lines = shown
      .flat()
      .flatMap((box) =>
        [...new Set(box.from.map((name) => places.get(name)).filter((one) => one && one.at < box.place.at))].map(
          (from) => s("path", { d: line(from, box.place, wide), class: `edge${from.at ? "" : " hurt"}` }),
        ),
      );
    const heads = columns.map((column, at) =>
      s(
        "text",
        { x: 1 + at * (wide + GAP_X), y: 11, class: "figure" },
        at ? COLUMNS[at] : column.some(({ health }) => health === "ill") ? "Lost" : "Chosen",
      ),
    );
    const none = columns[1].length ? "" : s("text", { x: 1 + wide + GAP_X, y: TOP + 26, class: "figure" }, "nothing");
    return s(
      "svg",
      {
        width,
        height,
        viewBox: `0 0 ${width} ${height}`,
        role: "group",
        "aria-label": "Services, and the categories that depend on them",
      },
      s("g", { "aria-hidden": "true" }, heads, lines, none),
      shown.flat().map((box) => this.#box(box, wide)),
    );
  }

  #box(box, width) {
    const { x, y, at } = box.place;
    const choose = () => (at ? this.page.choose("category", box.name) : this.page.listeners.filter(box.name));
    const letters = Math.floor((width - 34) / LETTER);
    const content = [
      s("rect", { width, height: BOX_HEIGHT, rx: 7, class: "box" }),
      box.health
        ? s("use", {
            href: `#i-${PICTURES[box.health]}`,
            x: 9,
            y: 7,
            width: 13,
            height: 13,
            class: `icon-${PICTURES[box.health]}`,
          })
        : "",
      s("text", { x: 28, y: 18, class: "name" }, shortened(box.name, letters)),
      " ",
      s("text", { x: 9, y: 34, class: "figure" }, box.figure),
    ];
    const transform = `translate(${x} ${y})`;
    if (box.rest)
      return s(
        "g",
        {
          class: "node rest",
          transform,
          role: "img",
          "aria-label": enumerate(
            box.rest.map(({ name }) => name),
            20,
          ),
        },
        content,
      );
    const label = `${box.name} ${box.figure}${at ? `; depends on ${enumerate(box.through, 6)}` : ""}`;
    const node = s(
      "g",
      {
        class: `node is-${box.health}`,
        transform,
        tabindex: 0,
        role: "button",
        "aria-label": label,
        "data-key": `${at} ${box.key}`,
      },
      content,
    );
    node.addEventListener("click", choose);
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose();
    });
    return node;
  }

  #list(impact) {
    const [lost, direct, rest] = this.#columns(impact);
    const item = (box, at) =>
      h(
        "li",
        {},
        icon(PICTURES[box.health]),
        h(
          "button",
          {
            type: "button",
            class: "link",
            "data-key": `${at} ${box.key}`,
            onclick: () => (at ? this.page.choose("category", box.name) : this.page.listeners.filter(box.name)),
          },
          box.name,
        ),
        h("span", { class: "dim" }, `${box.figure}${at ? `, through ${enumerate(box.through, 3)}` : ""}`),
      );
    const part = (title, boxes, at) =>
      boxes.length
        ? [
            h("h3", {}, title),
            h(
              "ul",
              { class: "chain" },
              boxes.map((box) => item(box, at)),
            ),
          ]
        : [];
    const title = lost.some(({ health }) => health === "ill") ? "Lost" : "Chosen";
    return h("div", { class: "chains" }, part(title, lost, 0), part(COLUMNS[1], direct, 1), part(COLUMNS[2], rest, 2));
  }
}

function shortened(name, most) {
  return name.length > most ? `${name.slice(0, Math.max(1, most - 1))}…` : name;
}

/** Return the path from the right edge of a box to the left edge of another. */
function line(from, to, width) {
  const [x1, y1, x2, y2] = [from.x + width, from.y + BOX_HEIGHT / 2, to.x, to.y + BOX_HEIGHT / 2];
  const middle = x2 - GAP_X / 2;
  return `M${x1} ${y1}H${middle - GAP_X / 2}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
}
