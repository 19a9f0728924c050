// A long list of which only the rows in sight are there: 100,000 rows cost as much as fifty.
//
// Rows have one height, so a place is a multiplication. An element stays with its key, so focus stays where it is.

const BEYOND = 6;
// Rows kept above and below what is seen, so that a quick turn of the wheel shows no gap.

export class Rows {
  #entries = [];
  #alive = new Map();
  #height = 36;

  /** `make(entry)` gives a new element, `mend(element, entry)` brings it up to date. */
  constructor(viewport, body, { make, mend, kind = () => "" }) {
    this.viewport = viewport;
    this.body = body;
    this.make = make;
    this.mend = mend;
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

  /** The height of a row is the style sheet's, which knows how wide the window is. */
  measure() {
    const height = Number.parseFloat(getComputedStyle(this.viewport).getPropertyValue("--row")) || 36;
    this.#height = height;
    this.body.style.height = `${this.#entries.length * height}px`;
    this.#draw(false);
  }

  #draw(mends) {
    const first = Math.max(0, Math.floor(this.viewport.scrollTop / this.#height) - BEYOND);
    const most = Math.ceil(this.viewport.clientHeight / this.#height) + 2 * BEYOND;
    const seen = this.#entries.slice(first, first + most);
    const before = this.#alive;
    this.#alive = new Map();
    let previous = null;
    seen.forEach((entry, offset) => {
      const old = before.get(entry.key);
      const element = old ?? this.make(entry);
      before.delete(entry.key);
      if (mends || !old) this.mend(element, entry);
      element.style.transform = `translateY(${(first + offset) * this.#height}px)`;
      // The first row is the one with the headings.
      element.setAttribute("aria-rowindex", first + offset + 2);
      const place = previous ? previous.nextSibling : this.body.firstChild;
      if (element !== place) this.body.insertBefore(element, place);
      previous = element;
      this.#alive.set(entry.key, element);
    });
    for (const element of before.values()) element.remove();
  }

  /** Arrows, Home and End lead from row to row. */
  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    const row = event.target.closest("[aria-rowindex]");
    if (!step || !row || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    let number = Number(row.getAttribute("aria-rowindex")) - 2;
    const last = this.#entries.length - 1;
    if (Number.isFinite(step)) number += step;
    else number = step > 0 ? last : 0;
    // Rows without a button are passed over; at an end the focus stays where it is.
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
    const button = this.#alive.get(this.#entries[number].key)?.querySelector("button");
    button?.focus({ preventScroll: true });
    return Boolean(button);
  }
}
