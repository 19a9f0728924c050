// The page: sign-in, and drawing after each change.

import { Actions } from "./actions.js";
import { Api, Refusal } from "./api.js";
import { $, tick } from "./dom.js";
import { condition, summarize } from "./summary.js";
import { Sync } from "./sync.js";
import { Graph } from "./graph.js";
import { drawFirstSteps } from "./first_steps.js";
import { drawHeader, unknownBecause } from "./header.js";
import { headline } from "./headline.js";
import { hostList } from "./hosts.js";
import { ImpactView } from "./impact_view.js";
import { IncidentList } from "./incident_list.js";
import { incidentGroups } from "./incidents.js";
import { HostList } from "./host_list.js";
import { ListenerList } from "./lists.js";
import { Log } from "./log.js";
import { ListenerPanel } from "./listener_panel.js";
import { parseLink } from "./route.js";
import { emptyState, isWhole } from "./store.js";

const TOKEN = "compass-token";
// The token belongs to this tab only: sessionStorage is neither shared nor kept.
const DRAW_MS = 120;
const DRAW_MANY_MS = 400;
// Pause between two drawings during a series of changes; longer with many listeners.
const MANY = 3_000;
// Listeners above which the longer pause applies.

class Page {
  #clockOff = 0;
  #drawn = 0;
  #timer = null;
  #chosen = { kind: "", name: "" };
  #isLinkDue = true;
  // True until the link in the address has been followed: it may be opened before the catalogue is read.

  constructor(api, who) {
    this.api = api;
    this.who = who;
    this.may = new Set(who.may);
    this.state = emptyState();
    this.sync = new Sync(api, this.state, {
      onChange: () => this.scheduleDraw(),
      onRefused: (error) => signOut(error.message),
    });
    this.#derive();
    this.actions = new Actions(this);
    this.panel = new ListenerPanel(this);
    this.listeners = new ListenerList(this);
    this.hosts = new HostList(this);
    this.graph = new Graph(this);
    this.incidents = new IncidentList(this);
    this.impact = new ImpactView(this);
    this.log = new Log(this);
    api.onTime = (server) => this.#setClock(server);
    $("who").textContent = `${who.name} (${who.role})`;
  }

  /** Return UNIX time by the server's clock, so that ages are right on a machine whose clock is wrong. */
  now() {
    return (Date.now() + this.#clockOff) / 1000;
  }

  #setClock(server) {
    // The header has whole seconds and is some milliseconds old; a small difference is ignored.
    const off = server + 500 - Date.now();
    this.#clockOff = Math.abs(off) > 2_000 ? off : 0;
  }

  start() {
    this.sync.start();
    this.ticking = setInterval(() => this.#second(), 1_000);
    this.onLink = () => this.#follow();
    addEventListener("hashchange", this.onLink);
    this.draw();
  }

  stop() {
    this.sync.stop();
    clearInterval(this.ticking);
    clearTimeout(this.#timer);
    removeEventListener("hashchange", this.onLink);
  }

  #derive() {
    this.summary = summarize(this.state);
    this.hostRows = hostList(this.state, this.sync.lags, this.summary);
    this.groups = incidentGroups(this.state, this.summary, this.sync.status);
    this.subject = this.#subject();
  }

  /** Return what the panel of the impact is about: what is chosen, else all that is lost, else the worst group. */
  #subject() {
    const { kind, name } = this.#chosen;
    const category = kind === "category" ? this.summary.categories.get(name) : undefined;
    if (category) {
      const lost = category.services.filter((service) => condition(service) === "ill");
      const services = (lost.length ? lost : category.services).map(({ id }) => id);
      return { title: name, services, group: "", chosen: true };
    }
    const own = kind === "group" ? this.groups.find(({ id }) => id === name) : undefined;
    const lost = this.groups.filter((group) => group.lost.length);
    if (!own && lost.length > 1) {
      return { title: "what is lost", services: lost.flatMap((group) => group.lost), group: "", chosen: false };
    }
    const group = own ?? this.groups.find(({ services }) => services.length);
    if (!group) return null;
    const title = group.id.slice(group.id.indexOf(" ") + 1);
    return { title, services: group.services, group: group.id, chosen: Boolean(own) && this.groups.length > 1 };
  }

  /** Choose a group of incidents or a category, whose impact and listeners are shown; none: an empty kind. */
  choose(kind, name) {
    this.#chosen = { kind, name };
    this.listeners.within(kind === "category" ? name : "");
    this.draw();
  }

  /** The chosen category; empty: none is. */
  get chosenCategory() {
    return this.#chosen.kind === "category" ? this.#chosen.name : "";
  }

  /** Show what the fragment of the address names. */
  #follow() {
    const link = parseLink(location.hash);
    if (!link) return;
    const { kind, id } = link;
    const missing = (what) => this.actions.showOutcome(what);
    if (kind === "incident") {
      if (!this.incidents.show(id)) missing("That incident is not open any more.");
    } else if (kind === "listener") {
      const listener = this.state.rows.listener.get(id);
      if (listener) this.panel.open(listener);
      else missing("There is no such listener any more.");
    } else if (kind === "category") {
      this.choose("category", id);
    } else {
      this.choose("", "");
      this.listeners.filter(id);
      $("listeners").scrollIntoView({ block: "start" });
    }
  }

  /** Copy a text; where the browser refuses that, show it to be copied by hand. */
  async copy(words) {
    try {
      await navigator.clipboard.writeText(words);
      this.actions.showOutcome("Copied.");
    } catch {
      this.actions.showText("Copy this text", words);
    }
  }

  #second() {
    tick(this.now());
    this.#drawHeader();
  }

  /** Draw soon; many changes cause one drawing. */
  scheduleDraw() {
    if (this.#timer !== null) return;
    const pause = this.state.rows.listener.size > MANY ? DRAW_MANY_MS : DRAW_MS;
    const wait = Math.max(0, this.#drawn + pause - Date.now());
    this.#timer = setTimeout(() => this.draw(), wait);
  }

  draw() {
    this.#timer = null;
    this.#drawn = Date.now();
    this.#derive();
    this.#drawHeader();
    document.body.classList.toggle("calm", !this.groups.length);
    drawFirstSteps(this);
    this.incidents.draw();
    this.impact.draw();
    this.graph.draw();
    this.listeners.draw();
    this.hosts.draw();
    this.log.draw();
    this.panel.draw();
    if ("listener" in this.state.at && !performance.getEntriesByName("listeners-shown").length) {
      performance.mark("listeners-shown");
    }
    if (this.#isLinkDue && isWhole(this.state)) {
      this.#isLinkDue = false;
      this.#follow();
    }
  }

  #drawHeader() {
    const { sync, groups, hostRows: hosts } = this;
    const unknown = unknownBecause(sync);
    drawHeader(this, headline(this.summary, { groups, hosts, unknown, status: sync.status }));
  }
}

let page = null;

function show(id) {
  for (const name of ["signin", "console"]) $(name).hidden = name !== id;
}

/** Return to the sign-in form, with the reason. */
function signOut(why = "") {
  page?.stop();
  page = null;
  sessionStorage.removeItem(TOKEN);
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  document.title = "compass: sign in";
  $("refused").textContent = why;
  show("signin");
  $("token").value = "";
  $("token").focus();
}

async function signIn(token) {
  const api = new Api(token);
  const who = await api.get("/v1/who");
  if (!who.may.includes("fetch")) {
    throw new Refusal(
      "forbidden",
      `${who.role} '${who.name}' may not read the catalogue: this page needs a token, or the certificate of an administrator`,
      403,
    );
  }
  if (token) sessionStorage.setItem(TOKEN, token);
  show("console");
  page = new Page(api, who);
  page.start();
}

async function begin() {
  const kept = sessionStorage.getItem(TOKEN) ?? "";
  try {
    await signIn(kept);
  } catch (error) {
    // A caller without token and certificate sees the form only: nothing has been refused yet.
    const anonymous = error.status === 401 && !kept;
    signOut(anonymous ? "" : describeError(error));
  }
}

function describeError(error) {
  return error instanceof Refusal ? error.message : `The server cannot be reached (${error.message}); try again.`;
}

$("signin-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("refused").textContent = "";
  try {
    await signIn($("token").value.trim());
    $("token").value = "";
  } catch (error) {
    $("refused").textContent = describeError(error);
  }
});
$("signout").addEventListener("click", () => {
  signOut();
  // Nothing that one person has seen may stay in the page for the next.
  location.reload();
});
begin();
