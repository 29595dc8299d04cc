/** The list of flagged purchases, newest first. Only the rows that can be seen exist, and they are used again. */

import { element, readable } from "./dom.js";
import { count, deviations, moment, money, plural } from "./format.js";

/** Rows beyond each edge, so that scrolling by a little shows no gap. */
const BEYOND = 6;
/** Seconds between two announcements of new flags to a screen reader. */
const QUIET = 10;

const CELLS = ["user", "severity", "amount", "when", "above", "label"];
const HEADINGS = ["User", "Severity", "Amount", "Time and event", "Standard deviations above the mean", "Label"];

/** A row without content. */
function emptyRow(id) {
  const cells = Object.fromEntries(CELLS.map((name) => [name, element("span", { role: "gridcell", class: name })]));
  cells.text = element("bdi", { class: "id" });
  cells.user.append(cells.text);
  const row = element("div", { role: "row", class: "row", id }, Object.values(cells).slice(0, CELLS.length));
  return { row, cells, shows: "" };
}

/** Shows `flagged` in `grid`; `open(seq)` opens one, and `more()` loads older ones. */
export class Feed {
  #flagged;
  #grid;
  #space;
  #head;
  #rows = [];
  #height = 56;
  #current = null;
  #opened = null;
  #newest = null;
  #count = 0;
  #unseen = 0;
  #announced = -Infinity;
  #pending = 0;
  #timer = null;
  #open;
  #more;

  constructor(flagged, { open, more }) {
    this.#flagged = flagged;
    this.#open = open;
    this.#more = more;
    this.#grid = document.getElementById("grid");
    const headings = HEADINGS.map((text) => element("span", { role: "columnheader" }, text));
    this.#head = element("div", { role: "row", class: "unseen", "aria-rowindex": "1" }, headings);
    this.#space = element("div", { role: "rowgroup", class: "space" });
    this.#grid.append(element("div", { role: "rowgroup" }, this.#head), this.#space);
    this.#grid.addEventListener("scroll", () => this.draw(), { passive: true });
    this.#grid.addEventListener("keydown", (event) => this.#key(event));
    this.#grid.addEventListener("click", (event) => this.#click(event));
    this.newer.addEventListener("click", () => this.toTop());
    new ResizeObserver(() => this.#measure()).observe(this.#grid);
    flagged.addEventListener("change", () => this.#changed());
  }

  get newer() {
    return document.getElementById("newer");
  }

  /** Mark the decision that is open, and make it the current row. */
  opened(seq) {
    this.#opened = seq;
    if (seq !== null) this.#current = seq;
    this.draw();
  }

  /** Open the next older one (1) or the next newer one (-1). */
  step(way) {
    this.#move(way);
    if (this.#current !== null && this.#current !== this.#opened) this.#open(this.#current);
  }

  focus() {
    this.#grid.focus();
  }

  /** Forget where the reader was; the filter or the run is another. */
  restart() {
    this.#newest = this.#flagged.shown.at(-1)?.seq ?? null;
    this.#unseen = 0;
    this.#grid.scrollTop = 0;
  }

  toTop() {
    this.#grid.scrollTop = 0;
    this.#unseen = 0;
    this.draw();
    this.focus();
  }

  /** The decision in this row, counted from the newest. */
  #at(row) {
    return this.#flagged.shown[this.#flagged.shown.length - 1 - row];
  }

  #rowOf(seq) {
    return this.#flagged.shown.length - 1 - this.#flagged.placeOf(seq);
  }

  #measure() {
    this.#height = 3.5 * parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.draw();
  }

  #changed() {
    const { shown } = this.#flagged;
    const fresh = this.#newest === null ? 0 : shown.length - this.#flagged.placeOf(this.#newest + 1);
    this.#newest = shown.at(-1)?.seq ?? this.#newest;
    if (fresh) this.#announce(fresh);
    const empty = shown.length === 0;
    this.#grid.hidden = empty;
    this.#space.style.height = `${shown.length * this.#height}px`;
    if (fresh && this.#grid.scrollTop > this.#height / 2) {
      this.#grid.scrollTop += fresh * this.#height; // what is being read stays where it is
      this.#unseen += fresh;
    }
    this.draw();
  }

  /** Draw the rows that can be seen. */
  draw() {
    const { shown } = this.#flagged;
    const { scrollTop, clientHeight } = this.#grid;
    if (scrollTop < this.#height / 2) this.#unseen = 0;
    this.newer.hidden = this.#unseen === 0;
    this.newer.textContent = `${plural(this.#unseen, "newer purchase")} above`;
    this.#space.style.height = `${shown.length * this.#height}px`;
    const first = Math.max(0, Math.floor(scrollTop / this.#height) - BEYOND);
    const last = Math.min(shown.length, Math.ceil((scrollTop + clientHeight) / this.#height) + BEYOND);
    const current = this.#current === null ? -1 : this.#rowOf(this.#current);
    while (this.#rows.length < last - first) {
      const made = emptyRow(`row-${this.#rows.length}`);
      this.#rows.push(made);
      this.#space.append(made.row);
    }
    let active = null;
    this.#rows.forEach((slot, place) => {
      // a row that stays in sight keeps its element
      const number = first + ((((place - first) % this.#rows.length) + this.#rows.length) % this.#rows.length);
      const within = number < last;
      slot.row.hidden = !within;
      if (!within) return;
      const one = this.#at(number);
      const isCurrent = number === current && one.seq === this.#current;
      if (isCurrent) active = slot.row.id;
      this.#fill(slot, one, number, isCurrent);
    });
    if (active) this.#grid.setAttribute("aria-activedescendant", active);
    else this.#grid.removeAttribute("aria-activedescendant");
    if (this.#count !== shown.length) this.#grid.setAttribute("aria-rowcount", String(shown.length + 1));
    this.#count = shown.length;
    if (shown.length && last === shown.length) this.#more();
  }

  #fill(slot, one, number, isCurrent) {
    const key = `${one.seq} ${number} ${one.label} ${isCurrent} ${one.seq === this.#opened} ${this.#height}`;
    if (slot.shows === key) return;
    slot.shows = key;
    const { row, cells } = slot;
    row.dataset.seq = one.seq;
    row.setAttribute("aria-rowindex", String(number + 2));
    row.setAttribute("aria-selected", String(one.seq === this.#opened));
    row.classList.toggle("current", isCurrent);
    row.style.transform = `translateY(${number * this.#height}px)`;
    cells.severity.dataset.severity = one.severity ?? "";
    cells.severity.textContent = one.severity ?? "";
    cells.text.textContent = readable(one.user);
    cells.amount.textContent = money(one.amount);
    cells.when.textContent = `${moment(one.time)} · event ${count(one.seq)}`;
    cells.above.textContent = deviations(one) ?? "";
    cells.label.textContent = one.label ?? "";
    cells.label.dataset.label = one.label ?? "";
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.#grid.clientHeight / this.#height) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in steps) {
      this.#move(steps[event.key]);
      event.preventDefault();
    } else if (event.key === "Enter" || event.key === " ") {
      if (this.#current !== null) this.#open(this.#current);
      event.preventDefault();
    }
  }

  #move(step) {
    const { length } = this.#flagged.shown;
    if (!length) return;
    const from = this.#current === null ? (step > 0 ? -1 : 0) : this.#rowOf(this.#current);
    const to = Math.min(length - 1, Math.max(0, from + step));
    this.#current = this.#at(to).seq;
    const [top, bottom] = [to * this.#height, (to + 1) * this.#height];
    if (top < this.#grid.scrollTop) this.#grid.scrollTop = top;
    else if (bottom > this.#grid.scrollTop + this.#grid.clientHeight) {
      this.#grid.scrollTop = bottom - this.#grid.clientHeight;
    }
    this.draw();
  }

  #click(event) {
    const row = event.target.closest("[data-seq]");
    if (!row) return;
    this.#current = Number(row.dataset.seq);
    this.#open(this.#current);
  }

  /** Tell a screen reader of new ones, not more often than one can listen. */
  #announce(fresh) {
    this.#pending += fresh;
    if (this.#timer !== null) return;
    const wait = Math.max(0, this.#announced + QUIET * 1000 - performance.now());
    this.#timer = setTimeout(() => {
      const newest = this.#flagged.shown.at(-1);
      const says = `${plural(this.#pending, "new flagged purchase")}; the latest: user ${newest && readable(newest.user)}, ${newest?.amount}`;
      document.getElementById("announcer").textContent = says;
      this.#announced = performance.now();
      this.#pending = 0;
      this.#timer = null;
    }, wait);
  }
}
