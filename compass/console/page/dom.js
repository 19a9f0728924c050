// Elements of the page. All values become text, never markup: names in a catalogue come from other people.

import { age, moment, momentAndAge, timestamp } from "./format.js";

/** Media query of windows that are too narrow for graphs. */
export const NARROW = "(max-width: 720px)";
/** Picture of each condition of a service, category or headline. */
export const PICTURES = { well: "up", note: "none", watch: "suspect", ill: "down", none: "none", gone: "offline" };
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return an HTML element; attributes such as `onclick` are listeners. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return an SVG element. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Return a picture of index.html. It is decoration: a word stands next to it. */
export function icon(name) {
  return s(
    "svg",
    { class: `icon icon-${name}`, "aria-hidden": "true", focusable: "false" },
    s("use", { href: `#i-${name}` }),
  );
}

/** Return a state as picture and word, never as colour alone. */
export function badge(state, word = state) {
  return h("span", { class: `badge s-${state}` }, icon(state), word);
}

/** Set the text only if it differs, so that selections and screen readers are not disturbed. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

const FORMS = { age: (at, now) => age(now - at), moment, both: momentAndAge };

/** Return an element with the age of a time; `form`: `age`, `moment` (time of day), or `both`. `tick` updates all. */
export function since(seconds, now, form = "age") {
  return h(
    "time",
    {
      "data-at": seconds,
      "data-form": form,
      datetime: new Date(seconds * 1000).toISOString(),
      title: timestamp(seconds),
    },
    FORMS[form](seconds, now),
  );
}

export function tick(now) {
  for (const element of document.querySelectorAll("[data-at]"))
    text(element, FORMS[element.dataset.form](Number(element.dataset.at), now));
}

export function $(id) {
  return document.getElementById(id);
}
