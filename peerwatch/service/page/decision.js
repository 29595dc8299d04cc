/** One decision: what was bought, why it was flagged or not, what would have changed that, and its label. */

import { isAbort, request } from "./api.js";
import { card, decisionHref, element, idOf, readable, table, userLink } from "./dom.js";
import { count, moment, money, plural } from "./format.js";
import { inWords, inequality, scored } from "./inequality.js";
import { byHop, networkPicture } from "./network.js";
import { windowChart } from "./window_chart.js";

const LABELS = { anomaly: "Anomaly", normal: "Normal" };

/** Shows decisions in an article, one at a time. */
export class DecisionPanel {
  #panel = document.getElementById("decision");
  #flagged;
  #closed;
  #loading = null;
  #labels = true;
  #shown = null;

  /** `closed()` is called when the reader closes it. */
  constructor(flagged, closed) {
    this.#flagged = flagged;
    this.#closed = closed;
    this.clear();
  }

  get seq() {
    return this.#shown?.seq ?? null;
  }

  /** Whether the run takes labels. */
  set labels(taken) {
    if (taken === this.#labels) return;
    this.#labels = taken;
    if (this.#shown) this.#drawLabels();
  }

  clear() {
    this.#loading?.abort();
    this.#shown = null;
    this.#panel.dataset.open = "false";
    this.#panel.replaceChildren(
      element("div", { class: "empty" }, element("p", {}, "Select a purchase to see why it was flagged.")),
    );
  }

  /** Show the decision on event `seq`; raises nothing, what goes wrong is shown. */
  async show(seq, { focus = true } = {}) {
    this.#loading?.abort();
    const loading = new AbortController();
    this.#loading = loading;
    const known = this.#flagged.get(seq);
    this.#shown = known ?? { seq };
    this.#panel.dataset.open = "true";
    const body = element("div", { class: "cards why", "aria-busy": "true" });
    const wait = element("p", { class: "waiting", role: "status" }, "Collecting the window and the network");
    this.#panel.replaceChildren(this.#head(this.#shown), wait, body);
    this.#panel.scrollTop = 0;
    if (focus) this.#panel.focus({ preventScroll: true });
    try {
      const asked = request(`explain/${seq}`, { signal: loading.signal });
      asked.catch(() => {}); // awaited below
      const stored = known ?? (await this.#stored(seq, loading.signal));
      const why = await asked;
      this.#identify({ ...why, time: why.timestamp, ...stored, flagged: why.verdict === "flagged" });
      wait.remove();
      body.append(...cards(why));
    } catch (error) {
      if (isAbort(error)) return;
      wait.remove();
      body.append(
        element(
          "div",
          { class: "problem", role: "alert" },
          element("p", {}, `Event ${count(seq)} cannot be explained: ${error.message}.`),
          element("button", { type: "button", onclick: () => this.show(seq) }, "Try again"),
        ),
      );
    } finally {
      body.removeAttribute("aria-busy");
    }
  }

  /** What the store says of a decision that is not in the list; the explanation says what is wrong if there is none. */
  async #stored(seq, signal) {
    const found = await request(`decisions/${seq}`, { signal }).catch(() => null);
    signal.throwIfAborted();
    if (found) this.#identify(found);
    return found;
  }

  /** Say which decision it is. */
  #identify(one) {
    this.#shown = one;
    const held = this.#panel.querySelector(".decision-head").contains(document.activeElement);
    this.#panel.querySelector(".decision-head").replaceWith(this.#head(one));
    if (held) this.#panel.focus({ preventScroll: true });
  }

  #head(one) {
    const flagged = one.flagged ?? null;
    const back = element(
      "button",
      { type: "button", class: "close", "aria-label": "Close", onclick: () => this.#closed() },
      "×",
    );
    const title =
      one.user === undefined
        ? element("h2", {}, `Event ${count(one.seq)}`)
        : element(
            "h2",
            {},
            element("span", { class: "muted" }, "User "),
            userLink(one.user, one.seq),
            element("span", { class: "muted" }, " paid "),
            element("span", { class: "sum" }, money(one.amount)),
          );
    const verdict =
      flagged === null
        ? null
        : element(
            "span",
            { class: "severity", "data-severity": flagged ? (one.severity ?? "flagged") : "normal" },
            flagged ? (one.severity ?? "flagged") : "not flagged",
          );
    return element(
      "div",
      { class: "decision-head" },
      element("div", { class: "title" }, title, back),
      element(
        "p",
        { class: "facts muted" },
        verdict,
        one.time && element("span", {}, `${moment(one.time)} UTC`),
        element("span", {}, `event ${count(one.seq)}`),
        one.file && element("span", { class: "file" }, `${readable(one.file)}:${one.line}`),
      ),
      element("div", { class: "labels", role: "group", "aria-label": "Label" }, this.#buttons(one)),
    );
  }

  #buttons(one) {
    const buttons = Object.entries(LABELS).map(([label, text]) =>
      element(
        "button",
        {
          type: "button",
          class: `label ${label}`,
          disabled: !this.#labels,
          "aria-pressed": String(one.label === label),
          "aria-keyshortcuts": text[0],
          onclick: () => this.label(label),
        },
        text,
      ),
    );
    const says = this.#labels ? "" : "This run takes no labels.";
    return [
      element("span", { class: "muted" }, "Label"),
      ...buttons,
      element("span", { class: "muted", role: "status" }, says),
    ];
  }

  #drawLabels() {
    const labels = this.#panel.querySelector(".labels");
    const held = labels?.contains(document.activeElement) ? [...labels.children].indexOf(document.activeElement) : -1;
    labels?.replaceChildren(...this.#buttons(this.#shown));
    if (held >= 0) labels.children[held].focus();
  }

  /** Tell the run what an analyst says about the decision that is shown. */
  async label(label) {
    if (!this.#shown || !this.#labels || this.#shown.label === label) return;
    const one = this.#shown;
    const before = one.label ?? null;
    const set = (now) => {
      one.label = now;
      this.#flagged.label(one.seq, now);
      if (this.#shown?.seq === one.seq) {
        this.#shown.label = now;
        this.#drawLabels();
      }
    };
    set(label);
    let says = "Saved";
    try {
      await request("feedback", { method: "POST", body: { seq: one.seq, label } });
    } catch (error) {
      set(before);
      says = `Not saved: ${error.message}`;
    }
    if (this.#shown?.seq === one.seq) this.#panel.querySelector(".labels [role=status]").textContent = says;
  }
}

/** The parts of an explanation. */
function cards(why) {
  const weights = new Map();
  for (const { user } of why.window) weights.set(user, (weights.get(user) ?? 0) + 1);
  const flagged = why.verdict === "flagged";
  const counts = `the ${plural(weights.size, "user")} whose purchases are in the window, larger for more of them`;
  const network = why.network.filter((member) => member.hop > 0);
  return [
    card(
      "The window against the threshold",
      { class: "window" },
      element("p", { class: "lead" }, inWords(why)),
      windowChart(why),
    ),
    card(
      "The network",
      { class: "network" },
      element(
        "p",
        { class: "lead" },
        network.length
          ? `${plural(network.length, "user")} within ${plural(why.D, "hop")}: ${byHop(network)}.`
          : "Nobody is within reach.",
      ),
      networkPicture(why.user, network, weights, { alarm: flagged, counts, at: why.seq }),
    ),
    card("What would flip it", { class: "flips" }, flips(why)),
    card(
      why.k === null ? "The score" : "The inequality",
      { class: "rule-card" },
      why.k === null ? scored(why) : inequality(why),
    ),
    card("The purchases in the window", { class: "purchases" }, purchases(why)),
  ];
}

/** The nearest amount, and each friendship and purchase without which the verdict would be the other one. */
function flips(why) {
  if (why.without === null)
    return element("p", {}, "There is no inequality in integers here, and so nothing that would flip it exactly.");
  const other = why.verdict === "flagged" ? "normal" : "flagged";
  const amount =
    why.flips_at === null
      ? element("p", { class: "lead" }, `No amount would be ${other}.`)
      : element(
          "p",
          { class: "lead" },
          "At ",
          element("strong", {}, money(why.flips_at)),
          ` it would be ${other}: ${plural(why.cents_away, "cent")} ${other === "normal" ? "less" : "more"}.`,
        );
  const bought = new Map(why.window.map((one) => [one.seq, one]));
  const rows = why.without.map((one) => {
    const purchase = bought.get(one.purchase);
    const what = one.friendship
      ? element(
          "span",
          {},
          "the friendship of ",
          userLink(one.friendship[0], why.seq),
          " and ",
          userLink(one.friendship[1], why.seq),
        )
      : element(
          "span",
          {},
          "the purchase of ",
          purchase ? userLink(purchase.user, why.seq) : `event ${count(one.purchase)}`,
          purchase ? ` for ${money(purchase.amount)}` : "",
        );
    return [what, count(one.window_size), money(one.mean), money(one.sd)];
  });
  if (!rows.length)
    return element(
      "div",
      {},
      amount,
      element("p", {}, `Without any one friendship or purchase it would still not be ${other}.`),
    );
  const headings = [
    { text: `${other[0].toUpperCase()}${other.slice(1)} without` },
    { text: "n", right: true },
    { text: "Mean", right: true },
    { text: "sd", right: true },
  ];
  return element("div", {}, amount, table("What would flip the verdict", headings, rows));
}

/** Each purchase of the window with the friendships that lead to it; made when it is opened. */
function purchases(why) {
  if (!why.window.length) return element("p", {}, "The window is empty.");
  const paths = new Map(why.network.map((member) => [member.user, member.path]));
  const headings = [
    { text: "Time" },
    { text: "Amount", right: true },
    { text: "By which friendships" },
    { text: "Event", right: true },
    { text: "Line" },
  ];
  const summary = element("summary", {}, `Show ${plural(why.window.length, "purchase")}, the newest first`);
  const details = element("details", {}, summary);
  details.addEventListener("toggle", () => {
    if (details.children.length > 1) return;
    const rows = why.window.map((one) => [
      moment(one.timestamp),
      money(one.amount),
      element(
        "span",
        {},
        (paths.get(one.user) ?? [one.user]).flatMap((user, place) => [place ? " – " : "", idOf(user)]),
      ),
      element("a", { href: decisionHref(one.seq) }, count(one.seq)),
      `${readable(one.file)}:${one.line}`,
    ]);
    details.append(table("The purchases in the window", headings, rows));
  });
  return details;
}
