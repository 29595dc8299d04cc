/** The comparison that decided, with its numbers; the integers are computed again here and compared. */

import { element } from "./dom.js";
import { grouped, millionths, money, ratioOf } from "./format.js";

/**
 * What sigma compares, from the window's n, S and Q, the amount and k alone: `d`, `left`, `right` and whether it flags.
 * With k = p / q: (q d)^2 against p^2 (n Q - S^2), where d = n x - S.
 */
function recomputed(why) {
  const [p, q] = ratioOf(why.k);
  const [n, S, Q, x] = [BigInt(why.n), BigInt(why.S), BigInt(why.Q), millionths(why.amount)];
  const d = n * x - S;
  const left = (q * d) ** 2n;
  const right = p ** 2n * (n * Q - S ** 2n);
  return { x, d, left, right, flagged: n >= 2n && d > 0n && left > right };
}

/** Whether the service's integers and verdict are those. */
const agrees = (why, own) =>
  String(own.d) === why.d &&
  String(own.left) === why.left &&
  String(own.right) === why.right &&
  own.flagged === (why.verdict === "flagged");

/** Text in which the names of numbers are set as such. */
const formula = (text) =>
  text.split(/\b([dnxSQ])\b/).map((part, place) => (place % 2 ? element("var", {}, part) : part));

const number = (digits) => element("span", { class: "digits" }, grouped(digits));

const line = (name, what, value) =>
  element(
    "tr",
    {},
    element("th", { scope: "row" }, name),
    element("td", { class: "muted" }, what),
    element("td", { class: "right" }, value),
  );

/** The decision of sigma as a table. */
export function inequality(why) {
  if (why.n < 2) return element("p", {}, "A window of fewer than two purchases never flags.");
  const own = recomputed(why);
  const holds = own.left > own.right;
  const square = `${why.k}²`;
  const check = agrees(why, own)
    ? element("p", { class: "check" }, "✓ Computed again in this browser, with the same result.")
    : element(
        "p",
        { class: "problem", role: "alert" },
        "Computed again in this browser, the integers are not the same.",
      );
  return element(
    "div",
    {},
    element(
      "p",
      { class: "rule" },
      formula(`Flagged if d > 0 and d² > ${square} · (n · Q − S²), where d = n · x − S. Amounts are in millionths.`),
    ),
    element(
      "table",
      { class: "numbers" },
      element("caption", { class: "unseen" }, "The inequality in numbers"),
      element(
        "tbody",
        {},
        line("x", "this purchase", number(own.x)),
        line("n", "purchases in the window", number(why.n)),
        line("S", "sum of their amounts", number(why.S)),
        line("Q", "sum of their squares", number(why.Q)),
        line("d", "n · x − S", number(why.d)),
        line("left", "d²", number(why.left)),
        line("right", `${square} · (n · Q − S²)`, number(why.right)),
      ),
    ),
    element(
      "p",
      { class: "outcome" },
      own.d <= 0n
        ? "d is not above 0: not flagged."
        : holds
          ? "The left side is larger: flagged."
          : "The left side is not larger: not flagged.",
    ),
    check,
  );
}

/** What another detector saw: its score and the features. */
export function scored(why) {
  const none = why.score === "nan";
  const model =
    why.model === null || why.model === undefined
      ? null
      : why.model === 0
        ? "Nothing had been learned yet."
        : `Model ${why.model}${why.model_since === null ? "" : `, active from event ${why.model_since} on`}.`;
  const features = Object.entries(why.features ?? {});
  return element(
    "div",
    {},
    element(
      "p",
      { class: "rule" },
      none
        ? "There is no score: the window is too small, or its numbers are too large."
        : `Score ${why.score}; above ${why.score_threshold} a purchase is flagged.`,
    ),
    model && element("p", {}, model),
    features.length > 0 &&
      element(
        "table",
        { class: "numbers" },
        element("caption", { class: "unseen" }, "What the model saw"),
        element(
          "tbody",
          {},
          features.map(([name, value]) =>
            element(
              "tr",
              {},
              element("th", { scope: "row" }, name),
              element("td", { class: "right" }, value === null ? "–" : Number(value).toPrecision(4)),
            ),
          ),
        ),
      ),
  );
}

/** The same in one sentence, in money. */
export function inWords(why) {
  if (why.mean === null) return "Nobody in the network had bought anything, so there was nothing to compare with.";
  const above = Number(why.amount) - Number(why.mean);
  if (why.threshold === null || why.threshold === undefined) {
    return `The last ${why.n} purchases of the network have the mean ${money(why.mean)} and the standard deviation ${money(why.sd)}.`;
  }
  const rule = `mean ${money(why.mean)} + ${why.k} × ${money(why.sd)} = ${money(why.threshold)}`;
  const times = Number(why.amount) / Number(why.threshold);
  const far =
    above > 0 && times >= 1.05 && Number.isFinite(times)
      ? `, ${times < 100 ? times.toFixed(1) : Math.round(times)} times the threshold`
      : "";
  return why.verdict === "flagged" ? `Above the threshold ${rule}${far}.` : `Not above the threshold ${rule}.`;
}
