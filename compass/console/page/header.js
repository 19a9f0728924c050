// Top of the page: headline, connection and clock.

import { $, PICTURES, icon, since, text } from "./dom.js";
import { age, timeOfDay } from "./format.js";

const LATE_SECONDS = 20;
// A live stream is never silent for longer; above it the page shows the age of the last update.

/** Return why the page does not know the present state: no connection, or no answer about it. Empty: it does. */
export function unknownBecause({ condition, receivedAt, statusTrouble }) {
  const quiet = receivedAt ? (Date.now() - receivedAt) / 1000 : 0;
  if (condition !== "live" || quiet >= LATE_SECONDS) return receivedAt ? `no connection for ${age(quiet)}` : "";
  return statusTrouble ? "the server's status cannot be read" : "";
}

export function drawHeader(page, line) {
  const { state, sync } = page;
  const { condition, receivedAt, status } = sync;
  const reading = !status && !("listener" in state.at);
  const quiet = receivedAt ? (Date.now() - receivedAt) / 1000 : 0;
  const live = condition === "live";
  text($("condition"), live ? "live" : condition);
  text($("last-update"), live && quiet < LATE_SECONDS ? "" : receivedAt ? `last update ${age(quiet)} ago` : "");
  $("connection").dataset.is = condition;
  drawClock(page.now());
  text($("server"), status?.server ?? "");
  text($("f-listeners"), line.listeners);
  text($("f-servers"), line.servers);
  text($("f-hosts"), line.hosts);
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
  drawSince(line.since, page.now());
  const trouble = status?.trouble ? "" : sync.statusTrouble || (live ? "" : sync.trouble);
  text($("trouble"), trouble);
  $("trouble").hidden = !trouble;
  const title = `${live ? "" : "(reconnecting) "}${line.text} · compass`;
  if (document.title !== title) document.title = title;
}

/** Show the server's time in UTC, as in the logs; the local time is its title. */
function drawClock(now) {
  const clock = $("clock");
  text(clock, `${timeOfDay(now)} UTC`);
  clock.dateTime = new Date(now * 1000).toISOString().slice(0, 19) + "Z";
  clock.title = `The server's clock; here it is ${new Date(now * 1000).toLocaleTimeString()}`;
}

function drawSince(at, now) {
  const element = $("since");
  if (element.dataset.of === String(at)) return;
  element.dataset.of = String(at);
  element.replaceChildren(...(at ? ["since ", since(at, now, "both")] : []));
}
