// Panel of one listener: its state, actions, timeline, users and attributes.

import { $, badge, h, icon, since } from "./dom.js";
import { endpoint, keyOf } from "./store.js";
import { describeUsers, origin, STATE_MEANS, timestamp } from "./format.js";
import { History } from "./history.js";
import { linkTo } from "./route.js";
import { timeline } from "./timeline.js";

const ENTRIES_SHOWN = 12;
// Entries of the timeline before "more".
const INQUIRIES = {
  suspicion: "A suspicion is being checked.",
  recovery: "It is probed until it recovers.",
  complaint: "A report of slowness is being checked.",
  check: "It is being checked.",
};

export class ListenerPanel {
  #key = "";
  #drawn = "";
  #caseFile = null;
  #impact = null;
  #request = 0;
  #history = null;
  #isWhole = false;

  constructor(page) {
    this.page = page;
    this.dialog = $("listener-panel");
    this.dialog.onclose = () => {
      this.#key = "";
      this.#history = null;
      if (location.hash.startsWith("#listener=")) history.replaceState(null, "", location.pathname);
    };
    // A click outside closes the panel, as Escape does.
    this.dialog.onclick = (event) => event.target === this.dialog && this.dialog.close();
  }

  open(listener) {
    this.#key = keyOf(listener);
    this.#drawn = "";
    this.#caseFile = null;
    this.#impact = null;
    this.#history = null;
    this.#isWhole = false;
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
  }

  draw() {
    if (!this.#key) return;
    const listener = this.page.state.rows.listener.get(this.#key);
    const whole = JSON.stringify(listener ?? null);
    if (whole !== this.#drawn) {
      this.#drawn = whole;
      if (listener) this.#ask(listener);
      this.#put(listener);
    }
  }

  async #ask({ service, address, port }) {
    this.#request += 1;
    const number = this.#request;
    const caught = (error) => ({ refused: error.message });
    this.#history ??= this.#read();
    const [caseFile, impact] = await Promise.all([
      this.page.api.get("/v1/examine", { service, address, port }).catch(caught),
      this.page.api.get("/v1/impact", { name: service }).catch(caught),
    ]);
    if (number !== this.#request || !this.#key) return;
    this.#caseFile = caseFile;
    this.#impact = impact;
    this.#put(this.page.state.rows.listener.get(this.#key));
  }

  /** Start to read the changes from before the page was opened. */
  #read() {
    const read = new History(this.page.api);
    const again = () => read === this.#history && this.#key && this.#put(this.page.state.rows.listener.get(this.#key));
    read.isRead = false;
    read.read().then(() => {
      read.isRead = true;
      again();
    });
    return read;
  }

  async #readOlder() {
    const read = this.#history;
    await read.readOlder();
    if (read === this.#history && this.#key) this.#put(this.page.state.rows.listener.get(this.#key));
  }

  #put(listener) {
    const focused = this.dialog.contains(document.activeElement) ? document.activeElement.id : "";
    const top = this.dialog.scrollTop;
    const close = h(
      "button",
      { type: "button", id: "listener-panel-close", onclick: () => this.dialog.close() },
      "Close",
    );
    if (!listener) {
      this.dialog.replaceChildren(
        h("div", { class: "head" }, h("h2", { id: "listener-panel-title" }, "This listener was removed"), close),
      );
      return;
    }
    const now = this.page.now();
    const died = this.page.summary.services.get(listener.service)?.died.has(listener);
    this.dialog.replaceChildren(
      h(
        "div",
        { class: "head" },
        h(
          "div",
          {},
          h("p", { class: "dim" }, listener.service),
          h("h2", { id: "listener-panel-title" }, endpoint(listener)),
        ),
        close,
      ),
      h(
        "p",
        { class: "now" },
        died ? badge("down", "died") : badge(listener.state),
        h(
          "span",
          {},
          ` ${died ? "ended without deregistering" : STATE_MEANS[listener.state]}, since `,
          since(listener.changed_at, now, "both"),
        ),
      ),
      listener.cause ? h("p", { class: "cause-line" }, listener.cause) : "",
      this.#actions(listener),
      h("h3", {}, "Timeline"),
      this.#judgement(listener, now),
      this.#timeline(listener, now),
      h("h3", {}, "Users"),
      this.#users(listener),
      h("h3", {}, "Attributes"),
      facts(listener, this.page.state),
    );
    this.dialog.scrollTop = top;
    if (focused) (document.getElementById(focused) ?? close).focus();
  }

  #actions(listener) {
    const link = h("a", { class: "quiet", href: linkTo("listener", keyOf(listener)) }, "Link");
    if (!this.page.may.has("drain") || listener.state === "offline") return h("p", { class: "actions" }, link);
    const draining = !listener.draining;
    return h(
      "p",
      { class: "actions" },
      h(
        "button",
        {
          type: "button",
          id: "listener-panel-drain",
          class: draining ? "" : "primary",
          onclick: () => this.page.actions.drain(listener, draining),
        },
        draining ? "Drain …" : "Undrain …",
      ),
      link,
    );
  }

  #users(listener) {
    const impact = this.#impact;
    if (!impact) return h("p", { class: "dim" }, "Requesting …");
    if (impact.refused) return h("p", { class: "refused" }, impact.refused);
    const { categories, services } = this.page.summary;
    return h("p", {}, describeUsers(impact, categories.get(services.get(listener.service)?.category)).join(" "));
  }

  /** Return what this server thinks of the listener now. */
  #judgement(listener, now) {
    const caseFile = this.#caseFile;
    if (!caseFile) return "";
    if (caseFile.refused) return h("p", { class: "refused" }, caseFile.refused);
    return h(
      "div",
      { class: "judgement" },
      caseFile.judgement && !(listener.cause && caseFile.judgement.endsWith(listener.cause))
        ? h("p", {}, caseFile.judgement, caseFile.judged_at ? [" (", since(caseFile.judged_at, now), " ago)"] : "")
        : "",
      caseFile.inquiry ? h("p", {}, INQUIRIES[caseFile.inquiry] ?? caseFile.inquiry) : "",
      caseFile.held_until > now
        ? h(
            "p",
            {},
            `It went down ${caseFile.failures} times recently and stays out of use until ${timestamp(caseFile.held_until)}.`,
          )
        : "",
      caseFile.doubting
        ? h("p", { class: "refused" }, "This server distrusts its own probes: it may be disconnected itself.")
        : "",
    );
  }

  #timeline(listener, now) {
    const read = this.#history;
    if (!read?.isRead) return h("p", { class: "dim" }, "Reading the log …");
    const live = this.page.state.changes;
    const changes = read.with(live);
    if (changes === null) {
      // More has changed meanwhile than the page keeps.
      this.#history = this.#read();
      return h("p", { class: "dim" }, "Reading the log …");
    }
    const entries = timeline(listener, changes, this.#caseFile?.evidence ?? []);
    const shown = this.#isWhole ? entries : entries.slice(0, ENTRIES_SHOWN);
    const showAll = () => {
      this.#isWhole = true;
      this.#put(listener);
    };
    return h(
      "div",
      {},
      read.trouble ? h("p", { class: "refused" }, `The log cannot be read: ${read.trouble}`) : "",
      h(
        "ol",
        { class: "timeline" },
        shown.map((entry) => entryOf(entry, now)),
      ),
      shown.length < entries.length
        ? h(
            "p",
            {},
            h(
              "button",
              { type: "button", id: "timeline-more", class: "link", onclick: showAll },
              `${entries.length - shown.length} more`,
            ),
          )
        : "",
      this.#reach(read, changes, now),
    );
  }

  /** Return how far back the timeline goes, and a button for more. */
  #reach(read, changes, now) {
    if (read.isWhole)
      return h("p", { class: "dim" }, "This is all that the log has. Evidence is that of this server since its start.");
    const first = changes[0];
    return h(
      "p",
      { class: "dim" },
      first ? ["Changes since ", since(first.time, now, "moment"), " are searched. "] : "",
      h(
        "button",
        { type: "button", id: "timeline-older", class: "link", onclick: () => this.#readOlder() },
        "Search older ones",
      ),
    );
  }
}

function entryOf({ time, picture, title, text, revision, times }, now) {
  return h(
    "li",
    { class: `entry at-${picture}` },
    since(time, now, "moment"),
    picture === "note" ? h("span", { class: "icon note", "aria-hidden": "true" }) : icon(picture),
    h(
      "span",
      { class: "what" },
      h("b", {}, title),
      text ? ` ${text}` : "",
      times > 1 ? h("span", { class: "dim" }, ` (${times} times)`) : "",
      revision ? h("span", { class: "dim" }, ` #${revision}`) : "",
    ),
  );
}

function facts(listener, state) {
  const { host, by } = origin(listener, state);
  const { weight = 1, zone, load, draining, epoch, metadata = {}, changed_at: changed } = listener;
  const pairs = [
    ["Host", host],
    ["Registered by", by && `${by}, on no host of this installation`],
    ["Own check", listener.check ? `${listener.check}: ${listener.failing || "passes"}` : ""],
    ["Weight", weight],
    ["Zone", zone],
    ["Load", load ? `${Math.round(load * 100)} %` : ""],
    ["Draining", draining ? "yes" : ""],
    ["Since", timestamp(changed)],
    ["Instance", epoch],
    ...Object.entries(metadata),
  ];
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== undefined && value !== "")
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))),
  );
}
