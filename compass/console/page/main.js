// The page: signing in, and drawing what is known whenever something is different.

import { Acts } from "./actions.js";
import { Api, Refusal } from "./api.js";
import { $, tick } from "./dom.js";
import { figures, headline, hostList } from "./summary.js";
import { Following } from "./sync.js";
import { Graph } from "./graph.js";
import { drawHead, drawIncidents } from "./header.js";
import { HostList, ListenerList } from "./lists.js";
import { Log } from "./log.js";
import { Sheet } from "./listener_panel.js";
import { fresh } from "./store.js";

const TOKEN = "compass-token";
// Of this tab only: sessionStorage is neither shared nor kept.
const DRAW_MS = 120;
const DRAW_MANY_MS = 400;
// Between two drawings while changes keep coming; more of a pause when there is much to count.
const MANY = 3_000;

class Page {
  #clockOff = 0;
  #drawn = 0;
  #timer = null;

  constructor(api, who) {
    this.api = api;
    this.who = who;
    this.may = new Set(who.may);
    this.state = fresh();
    this.following = new Following(api, this.state, {
      onNews: () => this.later(),
      onOut: (error) => leave(error.message),
    });
    this.figures = figures(this.state);
    this.acts = new Acts(this);
    this.sheet = new Sheet(this);
    this.listeners = new ListenerList(this);
    this.hosts = new HostList(this);
    this.graph = new Graph(this);
    this.log = new Log(this);
    api.onTime = (server) => this.#setClock(server);
    $("who").textContent = `${who.name} (${who.role})`;
    $("purge").hidden = !this.may.has("purge");
  }

  /** UNIX time by the server's clock: ages are told right on a machine whose own is wrong. */
  now() {
    return (Date.now() + this.#clockOff) / 1000;
  }

  #setClock(server) {
    // The header has whole seconds and was on its way; a small difference is none.
    const off = server + 500 - Date.now();
    this.#clockOff = Math.abs(off) > 2_000 ? off : 0;
  }

  start() {
    this.following.start();
    this.ticking = setInterval(() => this.#second(), 1_000);
    this.draw();
  }

  stop() {
    this.following.stop();
    clearInterval(this.ticking);
    clearTimeout(this.#timer);
  }

  #second() {
    tick(this.now());
    this.#drawHead();
  }

  /** Draw soon: many changes make one drawing. */
  later() {
    if (this.#timer !== null) return;
    const pause = this.state.rows.listener.size > MANY ? DRAW_MANY_MS : DRAW_MS;
    const wait = Math.max(0, this.#drawn + pause - Date.now());
    this.#timer = setTimeout(() => this.draw(), wait);
  }

  draw() {
    this.#timer = null;
    this.#drawn = Date.now();
    this.figures = figures(this.state);
    this.hostRows = hostList(this.state, this.following.lags, this.figures);
    this.#drawHead();
    drawIncidents(this);
    this.graph.draw();
    this.listeners.draw();
    this.hosts.draw();
    this.log.draw();
    this.sheet.draw();
    if ("listener" in this.state.at && !performance.getEntriesByName("listeners-shown").length) {
      performance.mark("listeners-shown");
    }
  }

  #drawHead() {
    drawHead(this, headline(this.state, this.figures, this.following.status, this.hostRows));
  }
}

let page = null;

function show(id) {
  for (const name of ["signin", "console"]) $(name).hidden = name !== id;
}

/** Back to the sign-in, with the server's words for why. */
function leave(why = "") {
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

async function enter(token) {
  const api = new Api(token);
  const who = await api.get("/v1/who");
  if (!who.may.includes("fetch")) {
    throw new Refusal(
      "forbidden",
      `${who.role} '${who.name}' may not look at the catalogue: a token, or the certificate of an administrator, opens this page`,
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
    await enter(kept);
  } catch (error) {
    // A stranger without a certificate has been refused nothing yet: the form is enough of an answer.
    const stranger = error.status === 401 && !kept;
    leave(stranger ? "" : said(error));
  }
}

function said(error) {
  return error instanceof Refusal ? error.message : `The server cannot be reached (${error.message}); try again.`;
}

$("signin-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("refused").textContent = "";
  try {
    await enter($("token").value.trim());
    $("token").value = "";
  } catch (error) {
    $("refused").textContent = said(error);
  }
});
$("signout").addEventListener("click", () => {
  leave();
  // What one person has seen is not left in the page for the next.
  location.reload();
});
begin();
