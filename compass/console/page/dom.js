// Making and mending elements. Everything becomes text, never markup: names in a catalogue are other people's.

import { age, moment } from "./format.js";

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

/** An HTML element; `onclick` and the like are listeners. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** One of the pictures in index.html. It is decoration: the word stands beside it. */
export function icon(name) {
  return s(
    "svg",
    { class: `icon icon-${name}`, "aria-hidden": "true", focusable: "false" },
    s("use", { href: `#i-${name}` }),
  );
}

/** A state with its picture and its word, never by colour alone. */
export function badge(state, word = state) {
  return h("span", { class: `badge s-${state}` }, icon(state), word);
}

/** Change the text only when it is another one: selections and screen readers are left in peace. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** An element that keeps telling how long ago something was; `tick` moves all of them on. */
export function since(seconds, now) {
  return h(
    "time",
    { "data-at": seconds, datetime: new Date(seconds * 1000).toISOString(), title: moment(seconds) },
    age(now - seconds),
  );
}

export function tick(now) {
  for (const element of document.querySelectorAll("[data-at]")) text(element, age(now - element.dataset.at));
}

export function $(id) {
  return document.getElementById(id);
}
