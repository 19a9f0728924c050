// Panel of the open incidents in groups, worst first, and of those that were resolved last.

import { $, PICTURES, badge, h, icon, since, text } from "./dom.js";
import { amount, count } from "./summary.js";
import { endpoint } from "./store.js";
import { reasonOf, subjectOf } from "./incidents.js";
import { linkTo } from "./route.js";
import { ticket } from "./ticket.js";
import { impactOf } from "./impact.js";

const GROUPS_SHOWN = 5;
// Groups before "more": a screen of a phone.
const ALERTS_SHOWN = 6;
// Incidents of an unfolded group before "more".
const RESOLVED_SHOWN = 3;

export class IncidentList {
  #drawn = "";
  #opened = new Set();
  #folded = new Set();
  #whole = new Set();
  #all = false;
  #marked = "";

  constructor(page) {
    this.page = page;
  }

  /** Return the row of the listener that an incident is about, or undefined. */
  listenerOf(alert) {
    const { about, name } = subjectOf(alert);
    return about === "listener" ? this.page.state.rows.listener.get(name) : undefined;
  }

  /** Unfold the group of an incident and move there. Returns false if the incident is not open. */
  show(id) {
    const group = this.page.groups.find(({ alerts }) => alerts.some((alert) => alert.id === id));
    if (!group) return false;
    this.#opened.add(group.id);
    this.#whole.add(group.id);
    this.#all = true;
    this.#marked = id;
    this.page.choose("group", group.id);
    const item = [...$("incident-list").querySelectorAll("[data-alert]")].find((one) => one.dataset.alert === id);
    item?.scrollIntoView({ block: "center" });
    item?.querySelector("button, a")?.focus({ preventScroll: true });
    return true;
  }

  draw() {
    const { state, groups } = this.page;
    const over = state.resolved.filter((one) => !state.rows.alert.has(one.id)).slice(0, RESOLVED_SHOWN);
    const subject = this.page.subject?.group ?? "";
    const shown = this.#all ? groups : groups.slice(0, GROUPS_SHOWN);
    const open = state.rows.alert.size;
    const seen = shown.map((group) => this.#seen(group));
    const whole = JSON.stringify([seen, groups.length, open, over, "alert" in state.at, subject, this.#marked]);
    if (whole === this.#drawn) return;
    this.#drawn = whole;
    const order = groups.length > 1 ? ", worst first" : "";
    text(
      $("n-incidents"),
      open ? `${amount(open, "open incident")}${order}` : "alert" in state.at ? "none is open" : "",
    );
    const list = $("incident-list");
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    const items = shown.map((group) => this.#group(group, group.id === subject));
    if (groups.length > shown.length)
      items.push(
        h(
          "li",
          { class: "more" },
          this.#more(`${groups.length - shown.length} more`, () => (this.#all = true)),
        ),
      );
    list.replaceChildren(
      items.length ? h("ul", { class: "groups" }, items) : "",
      over.length ? h("h3", {}, "Resolved last") : "",
      over.length
        ? h(
            "ul",
            { class: "incidents" },
            over.map((alert) => this.#resolved(alert)),
          )
        : "",
    );
    list.hidden = !list.childElementCount;
    if (focused !== undefined)
      [...list.querySelectorAll("[data-key]")]
        .find((one) => one.dataset.key === focused)
        ?.focus({ preventScroll: true });
  }

  /** Return whether a group is unfolded: by a person, or because it is the only one. */
  #isOpen({ id }) {
    return this.#opened.has(id) || (this.page.groups.length === 1 && !this.#folded.has(id));
  }

  /** Return all that the element of a group depends on. */
  #seen(group) {
    const { id, level, title, scope, since: at, alerts } = group;
    const open = this.#isOpen(group);
    const rows = open ? this.#alertsOf(group).map((alert) => [alert.id, this.listenerOf(alert)?.state]) : [];
    return [id, level, title, scope, at, alerts.length, alerts[0]?.id, open, rows];
  }

  #alertsOf({ id, alerts }) {
    return this.#whole.has(id) ? alerts : alerts.slice(0, ALERTS_SHOWN);
  }

  #more(words, act) {
    return h(
      "button",
      { type: "button", class: "link", "data-key": words, onclick: () => (act(), this.draw()) },
      words,
    );
  }

  #group(group, isSubject) {
    const open = this.#isOpen(group);
    const toggle = () => {
      (open ? this.#opened : this.#folded).delete(group.id);
      (open ? this.#folded : this.#opened).add(group.id);
      this.page.choose("group", group.id);
    };
    const title = h(
      "button",
      {
        type: "button",
        class: "title",
        "aria-expanded": String(open),
        "data-key": `title ${group.id}`,
        onclick: toggle,
      },
      group.title,
    );
    return h(
      "li",
      { class: `group is-${group.level}${isSubject ? " subject" : ""}` },
      icon(PICTURES[group.level]),
      h("h3", {}, title),
      h(
        "p",
        { class: "begun" },
        h("span", { class: "dim" }, "since "),
        group.since ? since(group.since, this.page.now(), "both") : "unknown",
      ),
      h("p", { class: "scope" }, group.scope.join(" · ")),
      h("p", { class: "tools-of" }, this.#copy(group), this.#link(group)),
      open ? this.#details(group) : "",
    );
  }

  #copy(group) {
    const copy = () => this.page.copy(this.#ticket(group));
    return h(
      "button",
      {
        type: "button",
        class: "quiet",
        "data-key": `copy ${group.id}`,
        "aria-label": `Copy a text about ${group.title}`,
        onclick: copy,
      },
      "Copy",
    );
  }

  #ticket(group) {
    const { state, summary, sync } = this.page;
    return ticket(group, {
      impact: impactOf(state, summary, group.services),
      listenerOf: (alert) => this.listenerOf(alert),
      server: sync.status?.server ?? "",
      revision: state.revision,
      now: this.page.now(),
      href: new URL(this.#fragment(group), location.href).href,
    });
  }

  #fragment(group) {
    if (group.alerts.length) return linkTo("incident", group.alerts[0].id);
    return group.services.length ? linkTo("service", group.services[0]) : "#incidents";
  }

  #link(group) {
    return h(
      "a",
      {
        class: "quiet",
        href: this.#fragment(group),
        "data-key": `link ${group.id}`,
        "aria-label": `Link to ${group.title}`,
      },
      "Link",
    );
  }

  #details(group) {
    const shown = this.#alertsOf(group);
    const rows = shown.map((alert) => this.#alert(alert));
    const hidden = group.alerts.length - shown.length;
    return h(
      "div",
      { class: "details" },
      rows.length ? h("ul", { class: "incidents" }, rows) : "",
      hidden
        ? h(
            "p",
            {},
            this.#more(`${count(hidden)} more of ${group.title}`, () => this.#whole.add(group.id)),
          )
        : "",
      h("p", { class: "next" }, "Next: ", h("code", {}, group.next)),
    );
  }

  #alert(alert) {
    const listener = this.listenerOf(alert);
    const reason = reasonOf(alert, listener);
    const what = listener
      ? [
          h(
            "button",
            {
              type: "button",
              class: "link",
              "data-key": `alert ${alert.id}`,
              onclick: () => this.page.panel.open(listener),
            },
            `${listener.service} ${endpoint(listener)}`,
          ),
          listener.host ? h("span", { class: "dim" }, ` on ${listener.host}`) : "",
          `: ${reason}`,
        ]
      : [h("span", {}, reason)];
    const word =
      alert.kind === "slow" ? "slow" : listener?.state === "offline" ? "died" : (listener?.state ?? alert.kind);
    const picture = alert.kind === "slow" ? "slow" : "down";
    return h(
      "li",
      { class: alert.id === this.#marked ? "marked" : "", "data-alert": alert.id },
      badge(picture, word),
      h("span", { class: "what" }, what),
      h(
        "a",
        { class: "dim", href: linkTo("incident", alert.id) },
        since(alert.opened_at, this.page.now(), "moment"),
        h("span", { class: "unseen" }, ` link to the incident ${alert.id}`),
      ),
    );
  }

  #resolved(alert) {
    return h(
      "li",
      { class: "over" },
      badge("up", "resolved"),
      h("span", { class: "what" }, alert.text),
      h("span", { class: "dim" }, since(alert.closed_at, this.page.now(), "both")),
    );
  }
}
