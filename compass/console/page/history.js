// Changes of the update log from before this page was opened, read from its end backwards.

export const HISTORY_PAGE = 2_000;
// Changes of one reading: one to two megabytes, and in most installations several days.

export class History {
  changes = [];
  // In order, without a gap.
  isWhole = false;
  // True if there are no older ones.
  trouble = "";
  #floor = 1;

  constructor(api) {
    this.api = api;
  }

  /** Read the newest changes. */
  async read() {
    await this.#attempt(async () => {
      this.changes = await this.#pages({ last: HISTORY_PAGE }, Infinity);
      this.isWhole = this.changes.length < HISTORY_PAGE || this.changes[0].revision <= this.#floor;
    });
  }

  /** Read older changes than those that are here. */
  async readOlder() {
    if (this.isWhole || !this.changes.length) return;
    await this.#attempt(async () => {
      const until = this.changes[0].revision - 1;
      const after = Math.max(this.#floor - 1, until - HISTORY_PAGE, 0);
      const older = until > after ? await this.#pages({ after, limit: until - after }, until) : [];
      this.changes = [...older, ...this.changes];
      this.isWhole = !older.length || older[0].revision <= Math.max(this.#floor, 1);
    });
  }

  /** Return these changes and the live ones after them; null if some are missing between. */
  with(live) {
    const last = this.changes.at(-1)?.revision ?? 0;
    if (live.length && live[0].revision > last + 1 && this.changes.length) return null;
    return [...this.changes, ...live.filter(({ revision }) => revision > last)];
  }

  async #attempt(read) {
    try {
      await read();
      this.trouble = "";
    } catch (error) {
      this.trouble = error.message;
    }
  }

  async #pages(query, until) {
    let page = await this.api.get("/v1/logs/updates", query);
    this.#floor = Math.max(page.floor ?? 0, 1);
    const changes = page.entries.map(({ change }) => change);
    while (page.more && changes.at(-1).revision < until) {
      page = await this.api.get("/v1/logs/updates", { after: changes.at(-1).revision });
      changes.push(...page.entries.map(({ change }) => change));
    }
    return changes.filter(({ revision }) => revision <= until);
  }
}
