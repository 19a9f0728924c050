// Top of the page: headline, connection and incidents.

import { $, badge, h, icon, since, text } from "./dom.js";
import { amount, count } from "./summary.js";
import { age } from "./format.js";

const PICTURES = { well: "up", watch: "suspect", ill: "down" };
const LATE_SECONDS = 20;
// A live stream is never silent for longer; above it the page shows the age of the last update.

/** Return why the page does not know the present state: no connection, or no answer about it. Empty: it does. */
export function unknownBecause({ condition, receivedAt, statusTrouble }) {
  const quiet = receivedAt ? (Date.now() - receivedAt) / 1000 : 0;
  if (condition !== "live" || quiet >= LATE_SECONDS) return receivedAt ? `no connection for ${age(quiet)}` : "";
  return statusTrouble ? "the server's status cannot be read" : "";
}

export function drawHeader({ state, sync }, line) {
  const { condition, receivedAt, status } = sync;
  const reading = !status && !("listener" in state.at);
  const quiet = receivedAt ? (Date.now() - receivedAt) / 1000 : 0;
  const live = condition === "live";
  text($("condition"), live ? "live" : condition);
  text($("last-update"), live && quiet < LATE_SECONDS ? "" : receivedAt ? `last update ${age(quiet)} ago` : "");
  $("connection").dataset.is = condition;
  text($("server"), status?.server ?? "");
  text($("f-listeners"), line.listeners);
  text($("f-servers"), line.servers);
  text($("f-hosts"), line.hosts);
  text($("f-lag"), line.lag);
  text($("f-revision"), count(state.revision));
  if (reading) return;
  const headline = $("headline");
  if (headline.dataset.level !== line.level) {
    headline.dataset.level = line.level;
    $("verdict-icon").replaceChildren(icon(PICTURES[line.level]));
    const mark = `mark-${line.level === "ill" ? "ill" : "well"}.svg`;
    $("favicon").href = mark;
    $("mark").src = mark;
  }
  text($("verdict"), line.text);
  text($("why"), line.why);
  const trouble = status?.trouble ? `The store is unavailable: ${status.trouble}. Lookups go on; hosts keep registrations and repeat them.` : sync.statusTrouble || (live ? "" : sync.trouble);
  text($("trouble"), trouble);
  $("trouble").hidden = !trouble;
  const title = `${live ? "" : "(reconnecting) "}${line.text} · compass`;
  if (document.title !== title) document.title = title;
}

let drawn = "";

/** Draw the open incidents, and the last resolved ones. */
export function drawIncidents(page) {
  const { state } = page;
  const open = [...state.rows.alert.values()].sort((a, b) => b.opened_at - a.opened_at);
  const over = state.resolved.filter((one) => !state.rows.alert.has(one.id)).slice(0, 5);
  const whole = JSON.stringify([
    open,
    over,
    "alert" in state.at,
    open.map((alert) => Boolean(listenerOf(state, alert))),
  ]);
  if (whole === drawn) return;
  drawn = whole;
  text($("n-incidents"), open.length ? amount(open.length, "open incident") : "");
  const items = open.map((alert) => incident(page, alert));
  const past = over.map((alert) =>
    h(
      "li",
      { class: "over" },
      badge("up", "resolved"),
      h("span", { class: "what" }, alert.text),
      h("span", { class: "dim" }, since(alert.closed_at, page.now()), " ago"),
    ),
  );
  const none = "alert" in state.at ? "No incident is open." : "";
  $("incident-list").replaceChildren(
    items.length ? h("ul", { class: "incidents" }, items) : h("p", { class: "empty" }, none),
    past.length ? h("h3", {}, "Recently resolved") : "",
    past.length ? h("ul", { class: "incidents" }, past) : "",
  );
}

/** Return the listener of an incident, whose id contains it; undefined for other incidents. */
function listenerOf(state, alert) {
  return state.rows.listener.get(alert.id.slice(alert.kind.length + 1));
}

function incident(page, alert) {
  const listener = listenerOf(page.state, alert);
  const what = listener
    ? h("button", { type: "button", class: "link", onclick: () => page.panel.open(listener) }, alert.text)
    : h("span", {}, alert.text);
  return h(
    "li",
    {},
    badge(alert.kind === "slow" ? "slow" : "down", alert.kind),
    h("span", { class: "what" }, what),
    h("span", { class: "dim" }, since(alert.opened_at, page.now())),
  );
}
