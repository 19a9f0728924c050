// What to do first, while nothing is registered.

import { $ } from "./dom.js";
import { registered } from "./summary.js";

/** Show the steps, and which of them are done; hide them once there is, or has been, a listener. */
export function drawFirstSteps({ state, summary, hostRows }) {
  const isRead = "listener" in state.at && "service" in state.at && "host" in state.at;
  $("first").hidden = !isRead || state.rows.listener.size > 0;
  if ($("first").hidden) return;
  const done = {
    services: summary.services.size > 0,
    hosts: hostRows.length > 0,
    listeners: registered(summary.total) > 0,
  };
  for (const [name, is] of Object.entries(done)) {
    $(`first-${name}`).classList.toggle("done", is);
    $(`first-${name}`).querySelector(".is").textContent = is ? "Done: " : "";
  }
}
