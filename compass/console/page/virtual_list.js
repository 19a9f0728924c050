// Virtual list: only the rows in sight have elements, so 100,000 rows cost as much as fifty.
//
// Rows have one height, so a position is a multiplication. An element stays with its key, and so does the focus.

const OVERSCAN = 6;
// Rows with elements above and below those in sight, so that fast scrolling shows no gap.

export class VirtualList {
  #entries = [];
  #elements = new Map();
  #height = 36;

  /** `make(entry)` returns a new element, `update(element, entry)` updates one. */
  constructor(viewport, body, { make, update, kind = () => "" }) {
    this.viewport = viewport;
    this.body = body;
    this.make = make;
    this.update = update;
    this.kind = kind;
    viewport.addEventListener("scroll", () => this.#draw(false), { passive: true });
    viewport.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.measure()).observe(viewport);
  }

  show(entries) {
    this.#entries = entries;
    this.measure();
    this.#draw(true);
  }

  /** Read the height of a row from the style sheet, where it depends on the width of the window. */
  measure() {
    const height = Number.parseFloat(getComputedStyle(this.viewport).getPropertyValue("--row")) || 36;
    this.#height = height;
    this.body.style.height = `${this.#entries.length * height}px`;
    this.#draw(false);
  }

  #draw(updates) {
    const first = Math.max(0, Math.floor(this.viewport.scrollTop / this.#height) - OVERSCAN);
    const most = Math.ceil(this.viewport.clientHeight / this.#height) + 2 * OVERSCAN;
    const seen = this.#entries.slice(first, first + most);
    const before = this.#elements;
    this.#elements = new Map();
    let previous = null;
    seen.forEach((entry, offset) => {
      const old = before.get(entry.key);
      const element = old ?? this.make(entry);
      before.delete(entry.key);
      if (updates || !old) this.update(element, entry);
      element.style.transform = `translateY(${(first + offset) * this.#height}px)`;
      // Row 1 has the headings.
      element.setAttribute("aria-rowindex", first + offset + 2);
      const place = previous ? previous.nextSibling : this.body.firstChild;
      if (element !== place) this.body.insertBefore(element, place);
      previous = element;
      this.#elements.set(entry.key, element);
    });
    for (const element of before.values()) element.remove();
  }

  /** Move the focus from row to row by arrows, Home and End. */
  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    const row = event.target.closest("[aria-rowindex]");
    if (!step || !row || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    let number = Number(row.getAttribute("aria-rowindex")) - 2;
    const last = this.#entries.length - 1;
    if (Number.isFinite(step)) number += step;
    else number = step > 0 ? last : 0;
    // Rows without a button are skipped; at an end the focus stays where it is.
    const onward = Number.isFinite(step) ? step : -Math.sign(step);
    for (; number >= 0 && number <= last; number += onward) {
      if (this.#focus(number)) return;
    }
  }

  #focus(number) {
    const top = number * this.#height;
    const { scrollTop, clientHeight } = this.viewport;
    if (top < scrollTop) this.viewport.scrollTop = top;
    else if (top + this.#height > scrollTop + clientHeight) this.viewport.scrollTop = top + this.#height - clientHeight;
    this.#draw(false);
    const button = this.#elements.get(this.#entries[number].key)?.querySelector("button");
    button?.focus({ preventScroll: true });
    return Boolean(button);
  }
}
