// Headline: the severity in one sentence, and the figures next to it. Pure.

import { amount, condition, count, inUse, registered } from "./summary.js";
import { enumerate, timeOfDay } from "./format.js";
import { lostOf } from "./incidents.js";
import { hostFigures } from "./hosts.js";

const SENTENCE = /^(all|no|nothing|the) /;
// Beginning of a text that is a sentence; the others begin with a number or with a name.

/** Return the headline: `level`, `text`, `why` (the rest of what is not well), `since`, and the figures.
 *
 * `unknown`: why the page does not know the present state; empty: it does. Nothing is called well then, nor while a
 * category has no listener or no host has ever come: then nothing has failed (`note`), and the page says what is missing.
 */
export function headline(summary, { groups, status, hosts, unknown = "" }) {
  const { total } = summary;
  const servers = status?.servers ?? [];
  const silent = servers.filter((server) => server.role === "silent").length;
  const figures = hostFigures(hosts);
  const bad = problems(summary, { groups, status, figures, silent, unknown });
  const missing = bad.length ? [] : absent(summary, figures);
  const level = bad.some(({ ill }) => ill) ? "ill" : bad.length ? "watch" : missing.length ? "note" : "well";
  const [first = missing.length ? (registered(total) ? "nothing has failed" : missing.shift()) : "all well", ...more] =
    [...bad.map(({ text }) => text)];
  const begun = groups.filter((group) => group.level === level).map(({ since }) => since);
  return {
    level,
    // Names stay as they are.
    text: SENTENCE.test(first) ? first.charAt(0).toUpperCase() + first.slice(1) : first,
    why: [...more, ...missing].join(" · "),
    since: begun.length ? Math.min(...begun.filter(Boolean)) : 0,
    servers: `${Math.max(servers.length, 1) - silent} of ${Math.max(servers.length, 1)}`,
    listeners: `${count(inUse(total))} of ${count(registered(total))}`,
    hosts: hosts.length ? `${count(figures.connected)} of ${count(hosts.length)}` : "none yet",
    stale: figures.lagging + figures.lost,
  };
}

/** Return what is not well, worst first; `ill`: a person must act. The first one is the headline. */
function problems({ services, total }, { groups, status, figures, silent, unknown }) {
  const lost = groups.flatMap((group) => group.lost);
  const ill = groups.filter((group) => group.level === "ill" && !group.lost.length && group.id !== "store");
  const watch = groups.filter((group) => group.level === "watch");
  const all = [...services.values()];
  const failed = all.reduce((sum, service) => sum + lostOf(service), 0);
  const drained = all.filter(({ count: of }) => of.draining && !inUse(of) && of.draining === registered(of)).length;
  const gone = all.filter((service) => condition(service) === "gone").length;
  const since = status?.trouble_since ? ` since ${timeOfDay(status.trouble_since)} UTC` : "";
  const alerts = groups.reduce((sum, group) => sum + group.alerts.length, 0);
  const listeners = `${count(failed)} of ${amount(registered(total), "listener")} lost`;
  return [
    [status?.trouble, `the store is unavailable: nothing can be registered${since}`, true],
    [unknown, unknown, false],
    [lost.length, lostText(groups, lost), true],
    [ill.length, ill.length === 1 ? ill[0]?.title : `${ill.length} severe incidents`, true],
    [
      !lost.length && failed,
      watch.length === 1 && !ill.length ? watch[0].title : `${listeners}, every service has others`,
      false,
    ],
    [lost.length && failed, listeners, false],
    [!failed && watch.length, watch.length === 1 ? watch[0]?.title : amount(watch.length, "incident"), false],
    [alerts > 1, `${amount(alerts, "incident")} open`, false],
    [drained, `${amount(drained, "service")} with all listeners draining`, false],
    [gone, `${amount(gone, "service")} with all listeners deregistered`, false],
    [total.suspect, `${count(total.suspect)} suspect`, false],
    [figures.lost, `${amount(figures.lost, "host")} without a session`, false],
    [figures.lagging, `${amount(figures.lagging, "host")} lagging`, false],
    [silent, `${amount(silent, "server")} silent`, false],
  ]
    .filter(([is]) => is)
    .map(([, text, isIll]) => ({ text, ill: isIll }));
}

function lostText(groups, lost) {
  const own = groups.filter((group) => group.lost.length);
  if (own.length === 1) return own[0].title;
  const names = own.map((group) => group.id.split(" ")[1]);
  return `${amount(lost.length, "service")} lost: ${enumerate(names, 3)}`;
}

/** Return what is missing in an installation in which nothing has failed. */
function absent({ categories, total }, { all }) {
  if (!registered(total)) return ["nothing is registered", ...(all ? [] : ["no host has come yet"])];
  const empty = [...categories.values()].filter(({ count: of }) => !registered(of)).map(({ name }) => name);
  return [
    empty.length
      ? `${count(empty.length)} of ${categories.size === 1 ? "1 category" : `${count(categories.size)} categories`} ` +
        `${empty.length === 1 ? "has" : "have"} no listener (${enumerate(empty, 3)})`
      : "",
    all ? "" : "no host has come yet",
  ].filter(Boolean);
}
