// Parser of server-sent events (HTML Living Standard, section 9.2). Pure: no clock, no network, no page.
//
// The browser's EventSource cannot send an Authorization header, and a token must not be in an address.

const LINE = /\r\n|\n|\r/;

/** Reader of a stream that arrives in pieces. `retry` and unknown fields are skipped, as the standard says. */
export class EventReader {
  #rest = "";
  #event = fresh();

  /** Return the events that are complete after this piece, each as `{id, event, data}`. */
  feed(text) {
    const found = [];
    let rest = this.#rest + text;
    // A lone CR at the end may be the first half of CR LF.
    const held = rest.endsWith("\r") ? "\r" : "";
    if (held) rest = rest.slice(0, -1);
    const lines = rest.split(LINE);
    this.#rest = lines.pop() + held;
    for (const line of lines) this.#take(line, found);
    return found;
  }

  #take(line, found) {
    if (line === "") {
      if (this.#event.data.length) found.push({ ...this.#event, data: this.#event.data.join("\n") });
      this.#event = fresh();
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#event.data.push(value);
    else if (field === "id") this.#event.id = value;
    else if (field === "event") this.#event.event = value;
  }
}

function fresh() {
  return { id: "", event: "message", data: [] };
}
