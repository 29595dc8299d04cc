/** The flagged purchases that the page knows, in order, and those of them that the filter lets through. */

import { compareAmounts, isAmount } from "./format.js";

/** The most that are kept; the oldest go first. They can be loaded again. */
export const MOST = 50_000;

/** Where a number would stand in an ascending list. */
function place(list, seq) {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].seq < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Two ascending lists as one; usually one ends before the other begins. */
function merged(left, right) {
  if (!left.length) return right;
  if (!right.length || left.at(-1).seq < right[0].seq) return left.concat(right);
  if (right.at(-1).seq < left[0].seq) return right.concat(left);
  return left.concat(right).sort((a, b) => a.seq - b.seq);
}

/** A test for one decision. `filter` has `user`, `amount`, `severity` and `search`, each of which may be empty. */
export function suits(filter) {
  const search = filter.search.toLowerCase();
  return (one) =>
    (!filter.user || one.user === filter.user) &&
    (!filter.severity || one.severity === filter.severity) &&
    (!isAmount(filter.amount) || compareAmounts(one.amount, filter.amount) >= 0) &&
    (!search || `${one.user}\n${one.seq}\n${one.file}:${one.line}\n${one.amount}`.toLowerCase().includes(search));
}

/** Tells its listeners with a `change` event, at most once a frame. */
export class Flagged extends EventTarget {
  #all = [];
  #known = new Map();
  #fits = () => true;
  #told = true;
  /** The matching decisions, ascending. */
  shown = [];

  get size() {
    return this.#all.length;
  }

  get first() {
    return this.#all[0]?.seq ?? null;
  }

  get last() {
    return this.#all.at(-1)?.seq ?? null;
  }

  get(seq) {
    return this.#known.get(seq) ?? null;
  }

  /** The place in `shown` of a decision, or of the next newer one. */
  placeOf(seq) {
    return place(this.shown, seq);
  }

  /** Take decisions; those that are known are kept as they are. */
  add(decisions) {
    const fresh = decisions.filter((one) => !this.#known.has(one.seq));
    if (!fresh.length) return;
    for (const one of fresh) this.#known.set(one.seq, one);
    if (fresh.length === 1 && fresh[0].seq > (this.last ?? -1)) {
      this.#all.push(fresh[0]);
      if (this.#fits(fresh[0])) this.shown.push(fresh[0]);
    } else {
      fresh.sort((a, b) => a.seq - b.seq);
      this.#all = merged(this.#all, fresh);
      this.shown = merged(this.shown, fresh.filter(this.#fits));
    }
    if (this.#all.length > MOST * 1.1) this.#forget();
    this.#tell();
  }

  /** Show what suits a filter. */
  filter(filter) {
    this.#fits = suits(filter);
    this.shown = this.#all.filter(this.#fits);
    this.#tell();
  }

  /** Note a label. */
  label(seq, label) {
    const one = this.#known.get(seq);
    if (one) one.label = label;
    this.#tell();
  }

  clear() {
    this.#all = [];
    this.shown = [];
    this.#known.clear();
    this.#tell();
  }

  #forget() {
    const gone = this.#all.length - MOST;
    for (const one of this.#all.splice(0, gone)) this.#known.delete(one.seq);
    this.shown.splice(0, place(this.shown, this.first));
  }

  #tell() {
    if (!this.#told) return;
    this.#told = false;
    requestAnimationFrame(() => {
      this.#told = true;
      this.dispatchEvent(new Event("change"));
    });
  }
}
