/** Loads flagged purchases that the stream has not brought: older ones a page at a time, and missed ones. */

import { isAbort, request, withQuery } from "./api.js";
import { MOST } from "./flagged.js";
import { isAmount } from "./format.js";

/** How many are loaded at a time. */
const PAGE = 500;

/** The query of a filter; what it searches for in text is left to the page. */
const queryOf = ({ user, severity, amount }) => ({ user, severity, min_amount: isAmount(amount) ? amount : null });

/** Fills `flagged`; `changed()` is called when loading has begun or ended. */
export class Pages {
  #flagged;
  #changed;
  #query = {};
  #before = null;
  #loading = null;
  /** Whether there are no older ones, or no room for them. */
  ended = false;
  failed = false;

  constructor(flagged, changed) {
    this.#flagged = flagged;
    this.#changed = changed;
  }

  get loading() {
    return this.#loading !== null;
  }

  /** Begin again with the newest that suit a filter. */
  restart(filter) {
    this.#loading?.abort();
    this.#loading = null;
    this.#query = queryOf(filter);
    this.#before = null;
    this.ended = false;
    if (this.#flagged.size > MOST / 2) this.#flagged.clear(); // makes room for what suits
    return this.older();
  }

  /** Load the page before what has been loaded. */
  async older() {
    if (this.loading || this.ended) return;
    const loading = new AbortController();
    this.#loading = loading;
    this.failed = false;
    this.#changed();
    try {
      const query = { flagged: true, order: "desc", limit: PAGE, before: this.#before, ...this.#query };
      const { decisions } = await request(withQuery("decisions", query), { signal: loading.signal });
      for (const { seq } of decisions) this.#before = Math.min(seq, this.#before ?? Infinity);
      this.#flagged.add(decisions);
      this.ended = decisions.length < PAGE || this.#flagged.size >= MOST;
    } catch (error) {
      if (isAbort(error)) return;
      this.failed = true;
    } finally {
      if (this.#loading === loading) {
        this.#loading = null;
        this.#changed();
      }
    }
  }

  /** Load all that were flagged after an event. */
  async after(seq) {
    for (;;) {
      const { decisions } = await request(withQuery("decisions", { flagged: true, after: seq, limit: PAGE }));
      this.#flagged.add(decisions);
      if (decisions.length < PAGE) return;
      seq = decisions.at(-1).seq;
    }
  }
}
