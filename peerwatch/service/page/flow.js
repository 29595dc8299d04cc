/** How the run keeps up: throughput, lag, and who is busy and whose mailbox is full, so that the bottleneck shows. */

import { colours, font, rem } from "./canvas.js";
import { card, element, readable, table } from "./dom.js";
import { bytes, compact, count, duration, percent, plural } from "./format.js";

/** Seconds that the charts show. */
const SECONDS = 600;
const CLOCK = new Intl.DateTimeFormat("en", { timeStyle: "medium", hourCycle: "h23" });
/** Above this share of its time an actor holds the others up. */
const BUSY = 0.8;

/** What the actors do, by the first word of their names. */
const DOES = {
  dispatcher: "reads, numbers and sends out events",
  graph: "walks the friend graph",
  shard: "keeps purchases, answers for windows",
  coordinator: "collects windows and judges",
  output: "writes what was judged",
  audit: "recomputes a sample",
  trainer: "trains models",
  checkpointer: "writes checkpoints",
};

/** The mailboxes that an actor reads beside the one that has its own name. */
const READS = { coordinator: /^(coordinator \d+|replies|models)$/ };

/** The actors, the busiest first, each with the mailboxes that it reads; mailboxes without one come last. */
function actorsOf({ actors = [], mailboxes }) {
  const left = new Map(mailboxes.map((box) => [box.name, box]));
  const take = (name) => {
    const box = left.get(name);
    left.delete(name);
    return box;
  };
  const rows = actors.map(({ name, busy_ratio }) => {
    const own = [...left.keys()].filter((box) => box === name || READS[name]?.test(box));
    return { name, busy: busy_ratio, boxes: own.map(take) };
  });
  rows.sort((a, b) => b.busy - a.busy);
  return [...rows, ...[...left.values()].map((box) => ({ name: box.name, busy: null, boxes: [box] }))];
}

/** The bottleneck in a sentence, and the actor that is meant if there is one. */
export function bottleneck(status) {
  if (status.state === "failed") return { who: null, says: "The run has failed." };
  const away = (status.servers ?? []).find((server) => server.away !== null && server.away !== undefined);
  if (away) return { who: null, says: `The run waits for ${readable(away.name)}, which does not answer.` };
  if (status.state === "finished") return { who: null, says: "Everything has been judged." };
  const busiest = actorsOf(status).find((row) => row.busy !== null);
  if (!busiest) return { who: null, says: "Nothing is known about the actors yet." };
  const waiting = busiest.boxes.reduce((sum, box) => sum + box.depth, 0);
  if (busiest.busy >= BUSY) {
    const queue = waiting ? `, and ${plural(waiting, "message")} wait for it` : "";
    return {
      who: busiest.name,
      says: `${busiest.name} is the bottleneck: busy ${percent(busiest.busy, 0)} of the time${queue}.`,
    };
  }
  return {
    who: null,
    says: `Nothing holds the run up. The busiest is ${busiest.name}, ${percent(busiest.busy, 0)} of the time.`,
  };
}

let loading = null;

/** Once uPlot is there; it is no module, so it comes by an element of its own. */
function loaded() {
  loading ??= new Promise((resolve) => {
    document.head.append(element("script", { src: "static/vendor/uPlot.js", onload: resolve }));
  });
  return loading;
}

/** A bar with its share beside it. */
const bar = (share, text, name) =>
  element(
    "div",
    { class: "bar", "data-level": share >= 1 ? "full" : share >= BUSY ? "high" : "fine" },
    element(
      "div",
      { class: "bar-track", role: "img", "aria-label": `${name}: ${text}` },
      element("div", { class: "bar-fill", style: { width: `${100 * Math.min(1, share)}%` } }),
    ),
    element("span", { class: "bar-text", "aria-hidden": "true" }, text),
  );

/** The view of the run's flow. */
export class FlowView {
  #view = document.getElementById("flow");
  #history = [];
  #charts = [];
  #parts;
  #status = null;

  constructor() {
    const says = element("p", { class: "lead big" });
    const actors = element("div", { class: "actors" });
    const servers = element("div", {});
    const totals = element("dl", { class: "totals" });
    this.#parts = { says, actors, servers, totals };
    const rate = this.#chart(
      "Events a second",
      "rate",
      ([, rate]) => rate,
      (value) => compact(value),
    );
    const lag = this.#chart(
      "Lag in seconds",
      "lag",
      ([, , lag]) => lag,
      (value) => `${value} s`,
    );
    this.#view.append(
      element("div", { class: "view-head" }, element("h2", { id: "flow-title" }, "Flow"), says),
      element(
        "div",
        { class: "cards" },
        card("Actors", { class: "wide" }, actors),
        card("Events a second", {}, rate),
        card("Lag", {}, lag),
        card("Since the start", {}, totals),
        card("Servers", {}, servers),
      ),
    );
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#rebuild());
  }

  /** Take a status, one a second. */
  take(status) {
    this.#status = status;
    const now = Math.round(Date.now() / 1000);
    this.#history.push([now, status.events_per_second, status.lag_seconds]);
    while (this.#history.length > SECONDS || this.#history[0][0] < now - SECONDS) this.#history.shift();
    if (!this.#view.hidden) this.draw();
  }

  draw() {
    if (!this.#status) return;
    const status = this.#status;
    const { says, actors, servers, totals } = this.#parts;
    const found = bottleneck(status);
    if (says.textContent !== found.says) says.textContent = found.says;
    says.dataset.level = found.who ? "high" : status.state === "failed" ? "full" : "fine";
    actors.replaceChildren(this.#actors(status, found.who));
    const numbers = [
      ["Events", count(status.totals.events)],
      ["Purchases judged", count(status.totals.judged)],
      ["Flagged", `${count(status.totals.flagged)} (${percent(status.totals.flagged / status.totals.judged, 2)})`],
      ["Rejected lines", count(status.totals.rejected)],
      [status.friendships === "directed" ? "Directed friendships" : "Friendships", count(status.totals.friendships)],
      ["Lag", `${bytes(status.lag_bytes)}, ${duration(status.lag_seconds)}`],
      [
        "Last checkpoint",
        status.checkpoint_age_seconds === null ? "none" : `${duration(status.checkpoint_age_seconds)} ago`,
      ],
      ["Restarts", count(status.restarts)],
      ["Recomputed and different", `${count(status.totals.differences)} of ${count(status.totals.recomputed)}`],
    ];
    totals.replaceChildren(
      ...numbers.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    );
    servers.replaceChildren(serverTable(status.servers ?? []));
    for (const chart of this.#charts) this.#feed(chart);
  }

  #actors(status, who) {
    // where a mailbox's own bound is not told, the fullest that any has been is the scale
    const fullest = Math.max(1, ...status.mailboxes.map((box) => box.highest));
    const rows = actorsOf(status).map(({ name, busy, boxes }) => {
      const kind = busy === null && !(name in DOES) ? null : name.split(" ")[0];
      const depths = boxes.map((box) => {
        const text = `${box.depth}${box.capacity ? ` of ${box.capacity}` : ""}, peak ${box.highest}`;
        const label = box.name === name ? null : element("span", { class: "muted box" }, readable(box.name));
        return element(
          "div",
          { class: "depth" },
          label,
          bar(box.depth / (box.capacity ?? fullest), text, `Mailbox ${box.name}`),
        );
      });
      return element(
        "tr",
        { class: name === who ? "who" : "" },
        element(
          "th",
          { scope: "row" },
          readable(name),
          element("span", { class: "muted does" }, DOES[kind] ?? (busy === null ? "a mailbox" : "")),
        ),
        element("td", {}, busy === null ? "" : bar(busy, percent(busy, 0), `${name} is busy`)),
        element("td", {}, depths.length ? depths : element("span", { class: "muted" }, "none")),
      );
    });
    return element(
      "table",
      {},
      element("caption", { class: "unseen" }, "Actors, the busiest first"),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          ["Actor", "Busy", "Messages in its mailbox"].map((text) => element("th", { scope: "col" }, text)),
        ),
      ),
      element("tbody", {}, rows),
    );
  }

  /** A chart over time; its latest value is in its text alternative. */
  #chart(title, name, pick, shown) {
    const holder = element("div", { class: "chart", role: "img", "aria-label": title });
    this.#charts.push({ holder, title, name, pick, shown, plot: null });
    new ResizeObserver(([entry]) => {
      const chart = this.#charts.find((each) => each.holder === entry.target);
      chart.plot?.setSize({ width: holder.clientWidth, height: holder.clientHeight });
    }).observe(holder);
    return holder;
  }

  #rebuild() {
    for (const chart of this.#charts) {
      chart.plot?.destroy();
      chart.plot = null;
      if (!this.#view.hidden && this.#history.length) this.#feed(chart);
    }
  }

  async #feed(chart) {
    await loaded();
    const data = [this.#history.map(([at]) => at), this.#history.map(chart.pick)];
    const latest = data[1].at(-1) ?? 0;
    chart.holder.setAttribute(
      "aria-label",
      `${chart.title} over the last ${Math.round(SECONDS / 60)} minutes; now ${latest.toFixed(1)}`,
    );
    if (chart.plot) {
      chart.plot.setData(data);
      return;
    }
    const colour = colours();
    const axis = {
      stroke: colour("muted"),
      grid: { stroke: colour("line"), width: 1 },
      ticks: { show: false },
      font: font(0.8),
    };
    chart.plot = new window.uPlot(
      {
        width: chart.holder.clientWidth || 300,
        height: chart.holder.clientHeight || 160,
        legend: { show: false },
        cursor: { show: false },
        scales: {
          y: { range: (_, __, most) => [0, Math.max(1, most * 1.15)] },
          x: { range: (_, first, last) => [Math.min(first, last - 60), last] },
        },
        axes: [
          {
            ...axis,
            size: 1.8 * rem(),
            space: 6 * rem(),
            values: (_, times) => times.map((at) => CLOCK.format(at * 1000)),
          },
          {
            ...axis,
            size: 4 * rem(),
            values: (_, values) => values.map((value) => (value >= 10_000 ? compact(value) : String(value))),
          },
        ],
        series: [
          {},
          {
            label: chart.title,
            stroke: colour("accent"),
            width: 2,
            fill: colour("accent-weak"),
            points: { show: false },
          },
        ],
      },
      data,
      chart.holder,
    );
  }
}

function serverTable(servers) {
  if (!servers.length) return element("p", {}, "This run reads and writes files only.");
  const headings = [
    { text: "Server" },
    { text: "State" },
    { text: "Written", right: true },
    { text: "To read", right: true },
    { text: "Retries", right: true },
  ];
  const rows = servers.map((one) => [
    readable(one.name),
    one.away ? element("strong", { class: "alarm" }, `away: ${one.away}`) : "answers",
    count(one.records),
    count(one.waiting),
    count(one.retries),
  ]);
  return table("Servers", headings, rows);
}
