/** Where the challenger disagrees, and what was noticed about the judges: drift, models, labels. */

import { request, withQuery } from "./api.js";
import { card, decisionHref, element, readable, table, userLink } from "./dom.js";
import { count, money } from "./format.js";

/** The most of each kind that are shown. */
const MOST = 200;

const KINDS = { drift: "Drift", model: "Model", labels: "Labels" };

/** A notice in a sentence. */
export function sentence({ notice, details }) {
  const number = (value) => (typeof value === "number" ? Number(value.toPrecision(4)) : value);
  if (notice === "drift") {
    return `The mean ${details.series} changed from ${number(details.before)} to ${number(details.after)}, found by ${details.by} after ${count(details.judged)} purchases.`;
  }
  if (notice === "model") return `Model ${details.version} judges from here on.`;
  if (notice === "labels") {
    const threshold = details.threshold === null || details.threshold === undefined ? "the threshold stays" : `the threshold is now ${number(details.threshold)}`;
    return `${count(details.labels)} labels were read, ${count(details.unknown ?? 0)} of them on unknown purchases; ${threshold}.`;
  }
  return JSON.stringify(details);
}

const verdict = (one) => element("span", { class: "severity", "data-severity": one.verdict }, one.verdict);

/** Why a judge decided so: its score or its threshold, whichever it has. */
function because(one) {
  if (one.score !== null && one.score !== undefined) return `score ${one.score} of ${one.score_threshold ?? one.threshold}`;
  return one.threshold === null || one.threshold === undefined ? "" : `threshold ${money(one.threshold)}`;
}

/** The view of the judges. */
export class JudgesView {
  #view = document.getElementById("judges");
  #notices = new Map();
  #name = null;
  #totals = null;
  #parts;

  constructor() {
    const lead = element("p", { class: "lead" });
    const disagreements = element("div", {});
    const notices = element("div", {});
    this.#parts = { lead, disagreements, notices };
    this.#view.append(
      element("div", { class: "view-head" }, element("h2", { id: "judges-title" }, "Judges")),
      element("div", { class: "cards" }, card("Where the challenger disagrees", { class: "wide" }, lead, disagreements), card("Drift, models, labels", { class: "wide" }, notices)),
    );
  }

  take(status) {
    const totals = `${status.totals.champion_alone} ${status.totals.challenger_alone}`;
    const changed = status.challenger !== this.#name || totals !== this.#totals;
    this.#name = status.challenger;
    this.#totals = totals;
    this.#parts.lead.textContent = this.#name === null
      ? "This run has no challenger. Set one in the config to compare a second detector on the same purchases."
      : `${status.detector} alone flagged ${count(status.totals.champion_alone)}, ${this.#name} alone ${count(status.totals.challenger_alone)}.`;
    if (changed && !this.#view.hidden) this.#load();
  }

  notice(one) {
    this.#notices.set(one.seq, one);
    while (this.#notices.size > MOST) this.#notices.delete(this.#notices.keys().next().value);
    if (!this.#view.hidden) this.#drawNotices();
  }

  /** The run is another. */
  clear() {
    this.#notices.clear();
  }

  async draw() {
    this.#drawNotices();
    await this.#load();
  }

  async #load() {
    const { disagreements } = this.#parts;
    try {
      const [against, noticed] = await Promise.all([
        this.#name === null ? { notices: [] } : request(withQuery("challenger", { limit: MOST })),
        request("notices"),
      ]);
      for (const one of noticed.notices.slice(-MOST)) this.#notices.set(one.seq, one);
      this.#drawNotices();
      const rows = against.notices.toReversed().map(({ event, details: one }) => [
        element("a", { href: decisionHref(event) }, count(event)), userLink(one.user, event), money(one.amount),
        element("span", {}, verdict(one.champion), " ", because(one.champion)), element("span", {}, verdict(one.challenger), " ", because(one.challenger)),
      ]);
      const headings = [{ text: "Event", right: true }, { text: "User" }, { text: "Amount", right: true }, { text: "Champion" }, { text: "Challenger" }];
      disagreements.replaceChildren(rows.length ? table("Disagreements", headings, rows) : element("p", { class: "muted" }, this.#name === null ? "" : "They have agreed on everything so far."));
    } catch (error) {
      disagreements.replaceChildren(element("p", { class: "problem" }, `This cannot be shown: ${error.message}.`));
    }
  }

  #drawNotices() {
    const list = [...this.#notices.values()].sort((a, b) => b.seq - a.seq).slice(0, MOST);
    const items = list.map((one) =>
      element(
        "li", { "data-kind": one.notice },
        element("strong", {}, KINDS[one.notice] ?? readable(one.notice)),
        element("span", {}, sentence(one)),
        element("span", { class: "muted" }, `${one.who}, event ${count(one.event)}`),
      ),
    );
    this.#parts.notices.replaceChildren(items.length ? element("ol", { class: "notices" }, items) : element("p", { class: "muted" }, "Nothing has been noticed so far."));
  }
}
