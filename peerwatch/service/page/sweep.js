/** What other choices of D, T and k would have flagged, as a heat map. */

import { Problem, isAbort, request } from "./api.js";
import { element } from "./dom.js";
import { count, percent, plural } from "./format.js";

/** Milliseconds between two looks at a job. */
const POLL = 300;

const FIELDS = {
  D: { label: "D, hops", value: "1, 2", whole: true, least: 1 },
  T: { label: "T, purchases in a window", value: "10, 50, 100", whole: true, least: 2 },
  k: { label: "k, standard deviations", value: "2, 2.5, 3, 4", whole: false, least: 0 },
};

/** The numbers of a list, ascending, each once; null if one of them is none. */
function numbersOf(text, { whole, least }) {
  const parts = text.split(/[\s,;]+/).filter(Boolean);
  const numbers = parts.map(Number);
  const fine = numbers.every((one) => Number.isFinite(one) && one >= least && (!whole || Number.isInteger(one)));
  return parts.length && fine ? [...new Set(numbers)].sort((a, b) => a - b) : null;
}

/** The view of a sweep. */
export class SweepView {
  #view = document.getElementById("sweep");
  #current = null;
  #cancel = null;
  #parts;

  constructor() {
    const inputs = Object.entries(FIELDS).map(([name, { label, value }]) => {
      const input = element("input", {
        name,
        value,
        inputMode: "decimal",
        autocomplete: "off",
        "aria-describedby": "sweep-problem",
      });
      return element("label", {}, label, input);
    });
    const start = element("button", { type: "submit", class: "primary" }, "Run");
    const cancel = element("button", { type: "button", hidden: true, onclick: () => this.#cancel?.() }, "Cancel");
    const form = element("form", { class: "inline", "aria-label": "Settings to try" }, inputs, start, cancel);
    const bar = element("progress", { max: 1, value: 0, "aria-label": "Progress" });
    const says = element("p", { class: "muted", role: "status" });
    const problem = element("p", { class: "problem", id: "sweep-problem", role: "alert", hidden: true });
    const results = element("div", { class: "heat" });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run(form);
    });
    const progress = element("div", { class: "progress", hidden: true }, bar);
    this.#parts = { form, start, cancel, bar, says, problem, results, progress };
    this.#view.append(
      element(
        "div",
        { class: "view-head" },
        element("h2", { id: "sweep-title" }, "What if D, T or k were others?"),
        element("p", { class: "muted" }, "Judges the log again with every combination. Nothing in the run changes."),
      ),
      form,
      problem,
      progress,
      says,
      results,
    );
  }

  /** The run's own setting, which is framed. */
  set current({ D, T, k }) {
    this.#current = { D, T, k };
  }

  #fail(text) {
    this.#parts.problem.hidden = text === null;
    this.#parts.problem.textContent = text ?? "";
  }

  #busy(busy) {
    const { start, cancel, progress } = this.#parts;
    const held = document.activeElement === start || document.activeElement === cancel;
    start.hidden = busy;
    cancel.hidden = !busy;
    progress.hidden = !busy;
    if (held) (busy ? cancel : start).focus();
  }

  async #run(form) {
    const wanted = {};
    for (const [name, field] of Object.entries(FIELDS)) {
      wanted[name] = numbersOf(form.elements[name].value, field);
      form.elements[name].setAttribute("aria-invalid", String(wanted[name] === null));
      if (wanted[name] === null) {
        const kind = field.whole ? `whole numbers of at least ${field.least}` : "numbers of at least 0";
        this.#fail(`${name}: expected ${kind}, with commas between them.`);
        form.elements[name].focus();
        return;
      }
    }
    this.#fail(null);
    this.#busy(true);
    const { bar, says, results } = this.#parts;
    bar.value = 0;
    says.textContent = "Waiting for a free worker";
    const cancelling = new AbortController();
    const { signal } = cancelling;
    try {
      const { job } = await request("sweep", { method: "POST", body: wanted });
      this.#cancel = async () => {
        says.textContent = "Cancelling";
        await request(`sweep/${job}`, { method: "DELETE" }).catch(() => {}); // it may have ended by itself
        cancelling.abort();
      };
      let found = { state: "waiting" };
      while (found.state === "waiting" || found.state === "running") {
        await new Promise((go) => setTimeout(go, POLL));
        found = await request(`sweep/${job}`, { signal });
        signal.throwIfAborted();
        bar.value = found.progress;
        if (found.state === "running") says.textContent = `Judging: ${percent(found.progress, 0)}`;
      }
      if (found.state !== "done") throw new Problem(500, null, found.reason ?? `the sweep was ${found.state}`);
      const judged = found.results[0]?.judged ?? 0;
      says.textContent = `${plural(judged, "purchase")} judged with ${plural(found.results.length, "setting")}.`;
      results.replaceChildren(...heatMaps(found.results, this.#current));
    } catch (error) {
      // a sweep that is cancelled is forgotten by the service, so nothing about it can be asked any more
      says.textContent = isAbort(error) || signal.aborted ? "Cancelled." : "";
      if (!says.textContent)
        this.#fail(error instanceof Problem ? `${error.message}.` : "The service does not answer.");
    } finally {
      this.#cancel = null;
      this.#busy(false);
    }
  }
}

/** A table for each D: T downwards, k across, coloured by the share that is flagged. */
function heatMaps(results, current) {
  const values = (name) => [...new Set(results.map((one) => one[name]))].sort((a, b) => Number(a) - Number(b));
  const at = new Map(results.map((one) => [`${one.D} ${one.T} ${Number(one.k)}`, one]));
  const shareOf = (one) => (one.judged ? one.flagged / one.judged : 0);
  const shares = results.map(shareOf);
  const [lowest, highest] = [Math.min(...shares), Math.max(...shares)];
  const cell = (one) => {
    if (!one) return element("td", {}, "–");
    const share = shareOf(one);
    // the ninth step is the darkest; equal steps of the square root tell small shares apart
    const step =
      highest > lowest
        ? Math.round((8 * (Math.sqrt(share) - Math.sqrt(lowest))) / (Math.sqrt(highest) - Math.sqrt(lowest)))
        : 4;
    const own = current && one.D === current.D && one.T === current.T && Number(one.k) === Number(current.k);
    return element(
      "td",
      { "data-step": step, class: own ? "own" : "" },
      element("strong", {}, percent(share)),
      element("span", {}, `${count(one.flagged)} flagged`),
      own && element("span", { class: "tag" }, "this run"),
    );
  };
  return values("D").map((D) =>
    element(
      "div",
      { class: "card heat-map" },
      element("h3", {}, `D = ${D}`),
      element(
        "div",
        { class: "scroll", tabIndex: 0, role: "region", "aria-label": `D = ${D}` },
        element(
          "table",
          {},
          element("caption", { class: "unseen" }, `Share of purchases that are flagged with D = ${D}, by T and k`),
          element(
            "thead",
            {},
            element(
              "tr",
              {},
              element("td", {}),
              values("k").map((k) => element("th", { scope: "col" }, `k = ${k}`)),
            ),
          ),
          element(
            "tbody",
            {},
            values("T").map((T) =>
              element(
                "tr",
                {},
                element("th", { scope: "row" }, `T = ${T}`),
                values("k").map((k) => cell(at.get(`${D} ${T} ${Number(k)}`))),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}
