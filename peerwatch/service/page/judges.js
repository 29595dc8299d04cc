/** Where the challenger disagrees, and what was noticed about the judges: drift, models, labels. */

import { request, withQuery } from "./api.js";
import { card, decisionHref, element, readable, table, userLink } from "./dom.js";
import { count, money } from "./format.js";

/** The most of each kind that are shown. */
const MOST = 200;

const KINDS = { drift: "Drift", model: "Model", labels: "Labels", release: "Release" };

/** A notice in a sentence. */
export function sentence({ notice, details }) {
  const number = (value) => (typeof value === "number" ? Number(value.toPrecision(4)) : value);
  if (notice === "drift") {
    return `The mean ${details.series} changed from ${number(details.before)} to ${number(details.after)}, found by ${details.by} after ${count(details.judged)} purchases.`;
  }
  if (notice === "model") return `Model ${details.version} judges from here on.`;
  if (notice === "labels") {
    const threshold =
      details.threshold === null || details.threshold === undefined
        ? "the threshold stays"
        : `the threshold is now ${number(details.threshold)}`;
    return `${count(details.labels)} labels were read, ${count(details.unknown ?? 0)} of them on unknown purchases; ${threshold}.`;
  }
  if (notice === "release") {
    const events = details.released.slice(0, 20).map(count).join(", ");
    const released = details.released.length ? `in windows from here on: event ${events}` : "nothing is released";
    return `${count(details.labels)} labels were read; ${released}.`;
  }
  return JSON.stringify(details);
}

/** What a judge says of a purchase; sigma has no score. */
function opinion({ flagged, score, threshold }) {
  const text = flagged ? "flagged" : "normal";
  const number = (value) => Number(value).toPrecision(4);
  const because =
    score === null || score === undefined ? "" : ` score ${number(score)}, flags above ${number(threshold)}`;
  return element("span", {}, element("span", { class: "severity", "data-severity": text }, text), because);
}

const byNumber = (notices) => [...notices.values()].sort((a, b) => b.seq - a.seq).slice(0, MOST);

/** Keep a notice, and of too many the newest. */
function keep(notices, one) {
  notices.set(one.seq, one);
  if (notices.size > 2 * MOST)
    for (const old of [...notices.keys()].sort((a, b) => a - b).slice(0, MOST)) notices.delete(old);
}

/** The view of the judges. */
export class JudgesView {
  #view = document.getElementById("judges");
  #notices = new Map();
  #name = null;
  #disagreements = new Map();
  #parts;
  #drawing = null;

  constructor() {
    const lead = element("p", { class: "lead" });
    const disagreements = element("div", {});
    const notices = element("div", {});
    this.#parts = { lead, disagreements, notices };
    this.#view.append(
      element("div", { class: "view-head" }, element("h2", { id: "judges-title" }, "Judges")),
      element(
        "div",
        { class: "cards" },
        card("Where the challenger disagrees", { class: "wide" }, lead, disagreements),
        card("Drift, models, labels", { class: "wide" }, notices),
      ),
    );
  }

  take(status) {
    const changed = status.challenger !== this.#name;
    this.#name = status.challenger;
    this.#parts.lead.textContent =
      this.#name === null
        ? "This run has no challenger. Set one in the config to compare a second detector on the same purchases."
        : `${status.detector} alone flagged ${count(status.totals.champion_alone)}, ${this.#name} alone ${count(status.totals.challenger_alone)}.`;
    if (changed && !this.#view.hidden) this.#load();
  }

  notice(one) {
    keep(one.notice === "disagreement" ? this.#disagreements : this.#notices, one);
    if (!this.#view.hidden) this.#drawSoon();
  }

  /** The run is another. */
  clear() {
    this.#notices.clear();
    this.#disagreements.clear();
  }

  /** Draw at most once a frame, however many come. */
  #drawSoon() {
    this.#drawing ??= requestAnimationFrame(() => {
      this.#drawing = null;
      this.#drawAll();
    });
  }

  #drawAll() {
    this.#drawNotices();
    this.#drawDisagreements();
  }

  async draw() {
    this.#drawAll();
    await this.#load();
  }

  async #load() {
    try {
      const asked = [
        request(withQuery("notices", { limit: MOST })),
        this.#name === null ? { notices: [] } : request(withQuery("challenger", { limit: MOST })),
      ];
      const [noticed, against] = await Promise.all(asked);
      for (const one of noticed.notices) keep(this.#notices, one);
      for (const one of against.notices) keep(this.#disagreements, one);
      this.#drawAll();
    } catch (error) {
      this.#parts.disagreements.replaceChildren(
        element("p", { class: "problem" }, `This cannot be shown: ${error.message}.`),
      );
    }
  }

  #drawDisagreements() {
    const rows = byNumber(this.#disagreements).map(({ event, details: one }) => [
      element("a", { href: decisionHref(event) }, count(event)),
      userLink(one.user, event),
      money(one.amount),
      opinion(one.champion),
      opinion(one.challenger),
    ]);
    const headings = [
      { text: "Event" },
      { text: "User" },
      { text: "Amount", right: true },
      { text: "Champion" },
      { text: "Challenger" },
    ];
    const none = element("p", { class: "muted" }, this.#name === null ? "" : "They have agreed on everything so far.");
    this.#parts.disagreements.replaceChildren(
      rows.length ? table("Disagreements, the newest first", headings, rows) : none,
    );
  }

  #drawNotices() {
    const items = byNumber(this.#notices).map((one) =>
      element(
        "li",
        { "data-kind": one.notice },
        element("strong", {}, KINDS[one.notice] ?? readable(one.notice)),
        element("span", {}, sentence(one)),
        element("span", { class: "muted" }, `${one.who}, event ${count(one.event)}`),
      ),
    );
    this.#parts.notices.replaceChildren(
      items.length
        ? element("ol", { class: "notices" }, items)
        : element("p", { class: "muted" }, "Nothing has been noticed so far."),
    );
  }
}
