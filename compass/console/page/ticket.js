// Text of a group of incidents, to be copied into a ticket or a chat. Pure.

import { endpoint } from "./store.js";
import { age, timestamp } from "./format.js";
import { reasonOf } from "./incidents.js";
import { describeImpact } from "./impact.js";

export const ALERTS_MAX = 20;
// Incidents in a text: more does not help a reader, and the link shows all of them.

/** Return the text. `listenerOf(alert)`: the row of the listener that an incident is about, or undefined. */
export function ticket(group, { impact, listenerOf, server, revision, now, href }) {
  const shown = group.alerts.slice(0, ALERTS_MAX);
  const lines = shown.map((alert) => {
    const listener = listenerOf(alert);
    const where = listener
      ? `${listener.service} ${endpoint(listener)}${listener.host ? ` on ${listener.host}` : ""}: `
      : "";
    return `- ${timestamp(alert.opened_at)} ${where}${reasonOf(alert, listener)}`;
  });
  if (group.alerts.length > shown.length) lines.push(`- and ${group.alerts.length - shown.length} more`);
  return [
    group.title,
    group.since ? `Since ${timestamp(group.since)} (${age(now - group.since)})` : "",
    group.scope.length ? `Scope: ${group.scope.join("; ")}` : "",
    ...lines,
    impact && impact.lost.length ? `Impact: ${describeImpact(impact).join(" ")}` : "",
    `Next: ${group.next}`,
    `Seen by ${server} at revision ${revision}, ${timestamp(now)}`,
    href,
  ]
    .filter(Boolean)
    .join("\n");
}
