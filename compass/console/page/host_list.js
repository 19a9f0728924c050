// The list of hosts, stale ones first: which revision each holds, what it misses, and since when.

import { $, h, icon, since, text } from "./dom.js";
import { amount, count } from "./summary.js";
import { cell } from "./lists.js";
import { hostFigures } from "./hosts.js";
import { VirtualList } from "./virtual_list.js";
import { HOST_MEANS } from "./format.js";

const PICTURES = {
  current: "up",
  dialled: "up",
  lagging: "suspect",
  gap: "suspect",
  lost: "down",
  unknown: "offline",
  barred: "none",
};

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
    const { connected, ...rest } = hostFigures(hosts);
    text(
      $("n-hosts"),
      hosts.length ? `${count(connected)} of ${count(hosts.length)} connected, ${staleText(rest)}` : "",
    );
    $("host-table").setAttribute("aria-rowcount", hosts.length + 1);
    $("host-table").hidden = !hosts.length;
    $("no-hosts").hidden = hosts.length > 0 || !("host" in this.page.state.at);
    this.rows.show(hosts);
  }

  #host(element, { name, lag, condition, stale, listeners }) {
    const whole = `${condition} ${lag.acknowledged} ${lag.pending} ${lag.server} ${listeners} ${stale?.at} ${stale?.before}`;
    if (element.dataset.whole === whole) return;
    element.dataset.whole = whole;
    const had = element.contains(document.activeElement);
    const show = () => {
      this.page.choose("", "");
      this.page.listeners.filter(name);
      $("listeners").scrollIntoView({ block: "nearest" });
    };
    const label = `${name}: show its ${amount(listeners, "listener")}`;
    const where = lag.server ? `session with ${lag.server}` : "";
    element.className = `row t${stale ? " is-stale" : ""}`;
    element.replaceChildren(
      cell("place", h("button", { type: "button", class: "link", "aria-label": label, onclick: show }, name)),
      cell(
        "state",
        h(
          "span",
          { class: `badge s-${PICTURES[condition]}`, title: where },
          icon(PICTURES[condition]),
          HOST_MEANS[condition],
        ),
      ),
      cell("num held", h("span", { class: "narrow-only" }, "holds "), lag.acknowledged ? count(lag.acknowledged) : "–"),
      cell("num missed", ...missed(lag.pending)),
      cell(
        "age",
        stale?.at ? [stale.before ? "before " : "", since(stale.at, this.page.now(), "both")] : stale ? "unknown" : "",
      ),
    );
    if (had) element.querySelector("button").focus({ preventScroll: true });
  }
}

function staleText({ lagging, lost, unknown }) {
  const parts = [
    [lagging, "stale"],
    [lost, "without a session"],
    [unknown, "unknown"],
  ].filter(([number]) => number);
  return parts.map(([number, what]) => `${count(number)} ${what}`).join(", ") || "none stale";
}

/** Return the number of missed notices; a narrow row says so in words, and nothing if there are none. */
function missed(number) {
  if (!number) return [h("span", { class: "wide-only" }, "–")];
  return [count(number), h("span", { class: "narrow-only" }, " missed")];
}
