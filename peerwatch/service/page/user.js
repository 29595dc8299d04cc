/** A user at any moment: a slider over the events of the run. */

import { Problem, isAbort, request, withQuery } from "./api.js";
import { bridges } from "./bridges.js";
import { card, decisionHref, element, idOf, readable, table, userHref, userLink } from "./dom.js";
import { count, moment, money, plural } from "./format.js";
import { byHop, networkPicture } from "./network.js";
import { radius } from "./radius.js";

/** Milliseconds for which the slider must rest before the state is asked for. */
const REST = 200;
/** How many states are kept. */
const KEPT = 200;
/** How many friends are listed. */
const LISTED = 200;

/** The view of one user. */
export class UserView {
  #view = document.getElementById("user");
  #user = null;
  #at = null;
  #newest = 1;
  /** Whether a status has told how many events there are. */
  #told = false;
  #kept = new Map();
  #decisions = [];
  #loading = null;
  #before = null;
  #timer = null;
  #parts;

  constructor() {
    const input = element("input", { name: "user", required: true, autocomplete: "off", spellcheck: false });
    const form = element(
      "form",
      { class: "inline", role: "search", "aria-label": "User" },
      element("label", {}, "User id ", input),
      element("button", { type: "submit", class: "primary" }, "Show"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      location.hash = userHref(input.value);
    });
    const slider = element("input", { type: "range", min: 1, max: 1, step: 1, "aria-label": "As of event" });
    slider.addEventListener("input", () => this.#slide(Number(slider.value)));
    const number = element("input", { type: "number", min: 1, step: 1, "aria-label": "Event number" });
    number.addEventListener("change", () => this.#slide(Number(number.value)));
    const step = (text, way, label) =>
      element("button", { type: "button", "aria-label": label, onclick: () => this.#jump(way) }, text);
    const marks = element("div", { class: "marks", "aria-hidden": "true" });
    const time = element(
      "div",
      { class: "time card", hidden: true },
      element(
        "div",
        { class: "time-row" },
        element("label", {}, "As of event ", number),
        step("‹ Earlier decision", -1, "Earlier decision"),
        step("Later decision ›", 1, "Later decision"),
        element("button", { type: "button", onclick: () => this.#slide(this.#newest) }, "Now"),
      ),
      element("div", { class: "track" }, marks, slider),
      element("p", { class: "muted ends" }, element("span", {}, "event 1"), element("span", { class: "end" })),
    );
    const state = element("div", { class: "cards" });
    const title = element("h2", { id: "user-title" }, "A user at any moment");
    this.#parts = { input, slider, number, marks, time, state, title };
    this.#view.append(element("div", { class: "view-head" }, title, form), time, state);
    this.#empty();
  }

  /** How many events there are. */
  set newest(events) {
    this.#told = true;
    this.#end(events);
  }

  #end(events) {
    this.#newest = Math.max(1, events);
    const { slider, number, time } = this.#parts;
    slider.max = number.max = String(this.#newest);
    time.querySelector(".end").textContent = `event ${count(this.#newest)}`;
    this.#mark();
  }

  /** Show a user as of an event, or as of now. */
  async show(user, at) {
    const { input, title, time } = this.#parts;
    if (user === null) {
      if (this.#user === null) this.#empty();
      input.focus();
      return;
    }
    const other = user !== this.#user;
    this.#user = user;
    input.value = user;
    title.replaceChildren("User ", idOf(user));
    time.hidden = false;
    if (other) {
      this.#kept.clear();
      this.#before = null;
      this.#decisions = [];
      this.#findDecisions(user);
    }
    if (at !== null) this.#place(at);
    await this.#load(at);
  }

  #empty() {
    this.#parts.state.replaceChildren(
      element(
        "div",
        { class: "empty" },
        element(
          "p",
          {},
          "Enter an id, or follow any user's name. The slider then shows friends, network and window as of any event.",
        ),
      ),
      card("Friendships that matter most", { class: "wide" }, ...bridges()),
    );
  }

  async #findDecisions(user) {
    try {
      const { decisions } = await request(withQuery("decisions", { user, order: "desc", limit: 500 }));
      if (user !== this.#user) return;
      this.#decisions = decisions.sort((a, b) => a.seq - b.seq);
      this.#mark();
    } catch {
      // without them there are no marks, and nothing to jump to
    }
  }

  /** Where the user's decisions are on the slider. */
  #mark() {
    const { marks } = this.#parts;
    const key = `${this.#user} ${this.#newest} ${this.#decisions.length}`;
    if (this.#view.hidden || marks.dataset.key === key) return;
    marks.dataset.key = key;
    marks.replaceChildren(
      ...this.#decisions.map(({ seq, flagged }) =>
        element("i", {
          class: flagged ? "flagged" : "",
          style: { left: `${(100 * (seq - 1)) / Math.max(1, this.#newest - 1)}%` },
        }),
      ),
    );
  }

  #place(at) {
    const { slider, number } = this.#parts;
    if (!this.#told && at > this.#newest) this.#end(at);
    this.#at = Math.min(this.#newest, Math.max(1, Math.round(at) || 1));
    slider.value = number.value = String(this.#at);
    slider.setAttribute("aria-valuetext", `event ${count(this.#at)}`);
  }

  #slide(at) {
    this.#place(at);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      history.replaceState(null, "", userHref(this.#user, this.#at));
      this.#load(this.#at);
    }, REST);
  }

  /** Go to the moment before the next decision on this user, as its window was then. */
  #jump(way) {
    const places = this.#decisions.map(({ seq }) => seq - 1);
    const to = way > 0 ? places.find((seq) => seq > this.#at) : places.findLast((seq) => seq < this.#at);
    if (to !== undefined) this.#slide(Math.max(1, to));
  }

  async #load(at) {
    this.#loading?.abort();
    const loading = new AbortController();
    this.#loading = loading;
    const { state } = this.#parts;
    const [user, key] = [this.#user, at ?? "now"];
    state.setAttribute("aria-busy", "true");
    try {
      const found =
        this.#kept.get(key) ??
        (await request(withQuery(`users/${encodeURIComponent(user)}`, { at }), { signal: loading.signal }));
      if (at !== null) this.#kept.set(key, found);
      if (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value);
      if (at === null) this.#place(found.seq);
      const open = state.querySelector("details")?.open ?? false;
      state.replaceChildren(...this.#cards(found, open));
      this.#before = found;
      const says = `As of event ${count(found.seq)}: ${plural(found.friends.length, "friend")}. ${rule(found)}`;
      document.getElementById("announcer").textContent = says;
    } catch (error) {
      if (isAbort(error)) return;
      const detail = error instanceof Problem ? error.message : "the service does not answer";
      state.replaceChildren(element("p", { class: "problem" }, `User ${readable(user)} cannot be shown: ${detail}.`));
    } finally {
      if (this.#loading === loading) state.removeAttribute("aria-busy");
    }
  }

  #cards(state, open) {
    const network = state.network.filter((member) => member.hop > 0);
    const friends = new Map(state.friends.map((friend) => [friend, 1]));
    const picture = networkPicture(state.user, network, friends, { alarm: false, counts: "friends", at: state.seq });
    const compares = network.length > 0 && state.k !== null; // the windows of other detectors have no limit
    return [
      card(
        "What would be flagged",
        {},
        element("p", { class: "lead" }, rule(state)),
        facts([
          ["As of event", count(state.seq)],
          ["Window", `${count(state.window_size)} of ${count(state.T)}`],
          ["Mean", money(state.mean)],
          ["sd", money(state.sd)],
          ["Threshold", money(state.threshold)],
        ]),
      ),
      card(
        "The network",
        { class: "tall" },
        element(
          "p",
          { class: "lead" },
          network.length
            ? `${plural(network.length, "user")} within ${plural(state.D, "hop")}: ${byHop(network)}.`
            : "Nobody is within reach.",
        ),
        picture,
        ...(compares ? radius(state, picture) : []),
      ),
      card(`Friends: ${count(state.friends.length)}`, {}, this.#changes(state), friendList(state, open)),
      card(
        "Latest purchases",
        {},
        state.purchases.length
          ? table(
              "The latest purchases",
              [{ text: "Time" }, { text: "Amount", right: true }, { text: "Event", right: true }],
              state.purchases
                .slice(0, 50)
                .map((one) => [
                  moment(one.timestamp),
                  money(one.amount),
                  element("a", { href: decisionHref(one.seq) }, count(one.seq)),
                ]),
            )
          : element("p", {}, "None so far."),
      ),
    ];
  }

  /** What is another than where the slider was before. */
  #changes(state) {
    const before = this.#before;
    if (!before || before.user !== state.user || before.seq === state.seq) return null;
    const [then, now] = [new Set(before.friends), new Set(state.friends)];
    const [more, less] = [state.friends.filter((id) => !then.has(id)), before.friends.filter((id) => !now.has(id))];
    const named = (ids) => [
      ...ids.slice(0, 12).flatMap((id) => [" ", userLink(id, state.seq)]),
      ids.length > 12 ? ` and ${count(ids.length - 12)} more` : "",
    ];
    const since = `Against event ${count(before.seq)}:`;
    if (!more.length && !less.length) return element("p", { class: "changes muted" }, since, " the same friends.");
    return element(
      "p",
      { class: "changes" },
      since,
      more.length > 0 && element("span", { class: "more" }, " with", named(more)),
      less.length > 0 && element("span", { class: "less" }, `${more.length ? "," : ""} without`, named(less)),
    );
  }
}

function rule(state) {
  if (state.window_size < 2) return "Nothing: a window of fewer than two purchases never flags.";
  if (state.threshold === null) return "The detector of this run has no threshold in money.";
  return `A purchase above ${money(state.threshold)} would be flagged.`;
}

function friendList(state, open) {
  if (!state.friends.length) return element("p", {}, "None at this moment.");
  const rest = state.friends.length - LISTED;
  return element(
    "details",
    { open: open || state.friends.length <= 40 },
    element("summary", {}, "Names"),
    element(
      "ul",
      { class: "names" },
      state.friends.slice(0, LISTED).map((friend) => element("li", {}, userLink(friend, state.seq))),
    ),
    rest > 0 && element("p", { class: "muted" }, `and ${count(rest)} more`),
  );
}

/** Names and values beside each other. */
const facts = (pairs) =>
  element(
    "dl",
    { class: "facts" },
    pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
