/** The friendships without which the most verdicts would be others, as of now. */

import { Problem, isAbort, request, withQuery } from "./api.js";
import { element, table, userLink } from "./dom.js";
import { count, plural } from "./format.js";

/** How many are listed. */
const LISTED = 20;

/** A button, and what it has found. */
export function bridges() {
  const answer = element("div", { class: "bridges", role: "status" });
  let loading = null;
  const show = async () => {
    loading?.abort();
    loading = new AbortController();
    answer.replaceChildren(element("p", { class: "waiting" }, "Leaving out one friendship after the other"));
    try {
      const found = await request(withQuery("bridges", { most: LISTED }), { signal: loading.signal });
      answer.replaceChildren(...told(found));
    } catch (error) {
      if (isAbort(error)) return;
      const detail = error instanceof Problem ? error.message : "the service does not answer";
      answer.replaceChildren(element("p", { class: "problem" }, `This cannot be shown: ${detail}.`));
    }
  };
  return [element("p", {}, element("button", { type: "button", onclick: show }, "Find")), answer];
}

function told(found) {
  const lead = element(
    "p",
    { class: "lead" },
    found.bridges.length
      ? `Of ${plural(found.friendships, "friendship")} as of event ${count(found.seq)}: how much would be other without each.`
      : `As of event ${count(found.seq)} no friendship changes a window.`,
  );
  if (!found.bridges.length) return [lead];
  const headings = [
    { text: "Friendship" },
    { text: "Verdicts", right: true },
    { text: "Windows", right: true },
    { text: "Networks", right: true },
  ];
  const rows = found.bridges.map(({ friendship: [one, other], verdicts, windows, networks }) => [
    element("span", {}, userLink(one, found.seq), " – ", userLink(other, found.seq)),
    count(verdicts),
    count(windows),
    count(networks),
  ]);
  return [lead, table("Friendships that matter most", headings, rows)];
}
