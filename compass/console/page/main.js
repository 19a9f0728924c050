// The page: sign-in, and drawing after each change.

import { Actions } from "./actions.js";
import { Api, Refusal } from "./api.js";
import { $, tick } from "./dom.js";
import { headline, hostList, summarize } from "./summary.js";
import { Sync } from "./sync.js";
import { Graph } from "./graph.js";
import { drawHeader, drawIncidents, unknownBecause } from "./header.js";
import { HostList, ListenerList } from "./lists.js";
import { Log } from "./log.js";
import { ListenerPanel } from "./listener_panel.js";
import { emptyState } from "./store.js";

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

  constructor(api, who) {
    this.api = api;
    this.who = who;
    this.may = new Set(who.may);
    this.state = emptyState();
    this.sync = new Sync(api, this.state, {
      onChange: () => this.scheduleDraw(),
      onRefused: (error) => signOut(error.message),
    });
    this.summary = summarize(this.state);
    this.actions = new Actions(this);
    this.panel = new ListenerPanel(this);
    this.listeners = new ListenerList(this);
    this.hosts = new HostList(this);
    this.graph = new Graph(this);
    this.log = new Log(this);
    api.onTime = (server) => this.#setClock(server);
    $("who").textContent = `${who.name} (${who.role})`;
    $("purge").hidden = !this.may.has("purge");
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
    this.draw();
  }

  stop() {
    this.sync.stop();
    clearInterval(this.ticking);
    clearTimeout(this.#timer);
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
    this.summary = summarize(this.state);
    this.hostRows = hostList(this.state, this.sync.lags, this.summary);
    this.#drawHeader();
    drawIncidents(this);
    this.graph.draw();
    this.listeners.draw();
    this.hosts.draw();
    this.log.draw();
    this.panel.draw();
    if ("listener" in this.state.at && !performance.getEntriesByName("listeners-shown").length) {
      performance.mark("listeners-shown");
    }
  }

  #drawHeader() {
    const { sync } = this;
    drawHeader(this, headline(this.state, this.summary, sync.status, this.hostRows, unknownBecause(sync)));
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
