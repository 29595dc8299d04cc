/** What hangs on a user or on one of its friendships: whose networks, windows and verdicts would be others without it. */

import { Problem, isAbort, request, withQuery } from "./api.js";
import { element, readable, table, userLink } from "./dom.js";
import { count, money, plural } from "./format.js";

/** How many users are listed. */
const LISTED = 50;

/** An exact amount as one can read it: what lies below a cent is cut off. */
const cents = (amount) => money(amount === null ? null : amount.replace(/(\.\d\d)\d+$/, "$1"));

/** A form below the picture of a user's network; what the user would lose is shown in the picture by `picture.cut`. */
export function radius(state, picture) {
  const choice = element(
    "select",
    { name: "friend", "aria-label": "What to leave out" },
    element("option", { value: "" }, "all friendships of this user"),
    state.friends.map((friend) => element("option", { value: friend }, `the friendship with ${readable(friend)}`)),
  );
  const answer = element("div", { class: "radius", role: "status" });
  let loading = null;
  const show = async () => {
    loading?.abort();
    loading = new AbortController();
    const { signal } = loading;
    const friend = choice.selectedIndex ? choice.value : null;
    answer.replaceChildren(element("p", { class: "waiting" }, "Comparing networks"));
    try {
      const found = await request(withQuery("radius", { user: state.user, friend, at: state.seq }), { signal });
      const own = found.users.find((one) => one.user === state.user);
      picture.cut(new Set(own ? own.lost : []));
      answer.replaceChildren(...told(found));
    } catch (error) {
      if (isAbort(error)) return;
      const detail = error instanceof Problem ? error.message : "the service does not answer";
      answer.replaceChildren(element("p", { class: "problem" }, `This cannot be shown: ${detail}.`));
    }
  };
  const form = element(
    "form",
    { class: "inline", "aria-label": "What hangs on it" },
    element("label", {}, "Without ", choice),
    element("button", { type: "submit" }, "Compare"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });
  return [form, answer];
}

function told(found) {
  const { networks, windows, verdicts, near } = found;
  const lead = element(
    "p",
    { class: "lead" },
    networks
      ? `${plural(networks, "network")} would be smaller, of ${count(near)} within reach; ` +
          `${plural(windows, "window")} and ${plural(verdicts, "verdict")} would be others.`
      : `Of ${count(near)} networks within reach none would be smaller.`,
  );
  if (!networks) return [lead];
  const rows = found.users
    .slice(0, LISTED)
    .map((one) => [
      userLink(one.user, found.seq),
      count(one.lost.length),
      cents(one.limit),
      cents(one.limit_without),
      one.verdict === one.verdict_without ? (one.verdict ?? "") : `${one.verdict}, then ${one.verdict_without}`,
    ]);
  const headings = [
    { text: "User" },
    { text: "Lost", right: true },
    { text: "Limit", right: true },
    { text: "Without", right: true },
    { text: "Verdict" },
  ];
  const rest = found.users.length - rows.length;
  return [
    lead,
    element(
      "details",
      {},
      element("summary", {}, "Whose networks"),
      table("Whose networks would be smaller", headings, rows),
      rest > 0 && element("p", { class: "muted" }, `and ${count(rest)} more`),
    ),
  ];
}
