/** The page: its views by the address, and the stream that feeds them. */

import { DecisionPanel } from "./decision.js";
import { decisionHref, element } from "./dom.js";
import { Feed } from "./feed.js";
import { Flagged } from "./flagged.js";
import { FlowView, bottleneck } from "./flow.js";
import { compact, count, duration, percent } from "./format.js";
import { JudgesView } from "./judges.js";
import { Pages } from "./pages.js";
import { EventStream } from "./stream.js";
import { SweepView } from "./sweep.js";
import { UserView } from "./user.js";

const id = (name) => document.getElementById(name);
const flagged = new Flagged();
const panel = new DecisionPanel(flagged, closeDecision);
const pages = new Pages(flagged, describeFeed);
const feed = new Feed(flagged, { open: (seq) => go(decisionHref(seq)), more: atEnd });
const views = {
  flagged: null,
  user: new UserView(),
  sweep: new SweepView(),
  flow: new FlowView(),
  judges: new JudgesView(),
};
const stream = new EventStream(heard, connection);
const filters = id("filters");
let run = null;
/** The newest decision before which none is missing. */
let sure = 0;
let countdown = null;
let shownView = null;
/** Whether the page has begun; what it shows first takes the focus from nobody. */
let began = false;

/** The filter as it stands in the form. */
const filter = () => ({
  search: filters.search.value.trim(),
  user: filters.user.value,
  severity: filters.severity.value,
  amount: filters.amount.value.trim(),
});

const go = (hash) => {
  location.hash = hash;
};

function closeDecision() {
  if (location.hash.startsWith("#/flagged/")) go("#/flagged");
}

/** Show what the address names. */
function route() {
  const [, name = "flagged", ...rest] = location.hash.split("/");
  const chosen = name in views ? name : "flagged";
  const [what, at] = rest.map(decodeURIComponent);
  for (const view of Object.keys(views)) id(view).hidden = view !== chosen;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${chosen}`) {
      link.setAttribute("aria-current", "page");
      document.title = `${link.textContent} – peerwatch`;
    } else link.removeAttribute("aria-current");
  }
  const entered = chosen !== shownView;
  shownView = chosen;
  if (chosen === "flagged") openDecision(what, entered);
  if (chosen === "user") views.user.show(what ?? null, /^\d+$/.test(at ?? "") ? Number(at) : null);
  if (chosen === "flow" || chosen === "judges") views[chosen].draw();
}

function openDecision(what, entered) {
  const seq = /^\d+$/.test(what ?? "") ? Number(what) : null;
  if (seq === panel.seq) return;
  id("flagged").dataset.open = String(seq !== null);
  feed.opened(seq);
  if (seq !== null) panel.show(seq, { focus: began });
  else {
    panel.clear();
    if (!entered) feed.focus();
  }
}

/** What is in the list and what is not yet. */
function describeFeed() {
  const { search, user, severity, amount } = filter();
  const filtered = Boolean(search || user || severity || amount);
  const shown = flagged.shown.length;
  id("feed-count").textContent = filtered
    ? `${count(shown)} of ${count(flagged.size)} loaded`
    : `${count(shown)} loaded`;
  id("older").disabled = pages.loading;
  id("older").hidden = pages.ended;
  const empty = id("feed-empty");
  empty.hidden = shown > 0;
  const text = pages.loading
    ? "Loading"
    : pages.failed
      ? "The service does not answer."
      : filtered
        ? "Nothing that is loaded suits the filter."
        : "Nothing has been flagged yet. New ones appear here at once.";
  if (empty.textContent !== text) empty.textContent = text;
}

/** The list is scrolled to its end. A search looks through what is loaded, and loads more only when it is told to. */
function atEnd() {
  if (!filter().search && !pages.failed) pages.older();
}

function refilter() {
  flagged.filter(filter());
  feed.restart();
  pages.restart(filter());
}

function heard(type, data) {
  if (type === "flagged") flagged.add([{ label: null, ...data }]);
  else if (type === "status") status(data);
  else if (type === "notice") views.judges.notice(data);
  else if (type === "dropped") pages.after(sure).catch(() => {}); // the next connection tries again
}

function status(now) {
  if (run !== null && run !== now.run) {
    flagged.clear(); // another run has other numbers
    views.judges.clear();
    stream.last = 0;
    refilter();
  }
  run = now.run;
  sure = flagged.last ?? 0;
  panel.labels = now.labels;
  views.user.newest = now.totals.events;
  views.sweep.current = { D: now.D, T: now.T, k: now.detector.startsWith("k=") ? now.detector.slice(2) : null };
  views.flow.take(now);
  views.judges.take(now);
  figures(now);
  const banner = id("banner");
  const fails = now.state === "failed" ? "The run has failed. What was judged before can still be read." : null;
  if (banner.textContent !== (fails ?? "")) banner.textContent = fails ?? "";
  banner.hidden = fails === null;
}

/** What is judged by what; what is usual is not named. */
function rule(now) {
  const { D, T, detector, friendships, judge_batch: batch, quarantine } = now;
  const parts = [`D ${D}`, `T ${T}`, detector.replace("=", " ")];
  if (friendships === "directed") parts.push("directed");
  if (batch) parts.push("both logs");
  if (quarantine) parts.push("quarantine");
  return parts.join(" · ");
}

/** The figures at the top; only what has changed is written. */
function figures(now) {
  const found = bottleneck(now);
  const busiest = [...(now.actors ?? [])].sort((a, b) => b.busy_ratio - a.busy_ratio)[0];
  const wanted = [
    ["Run", now.state, now.state === "failed" ? "full" : ""],
    ["Rule", rule(now), ""],
    [
      "Flagged",
      `${count(now.totals.flagged)} of ${compact(now.totals.judged)} (${percent(now.totals.flagged / now.totals.judged)})`,
      "",
    ],
    ["Events a second", compact(now.events_per_second), ""],
    ["Lag", duration(now.lag_seconds), now.lag_seconds > 10 ? "high" : ""],
    ["Busiest", busiest ? `${busiest.name} ${percent(busiest.busy_ratio, 0)}` : "–", found.who ? "high" : ""],
  ];
  const list = id("figures");
  if (list.children.length !== wanted.length) {
    list.replaceChildren(...wanted.map(([name]) => element("div", {}, element("dt", {}, name), element("dd", {}))));
  }
  wanted.forEach(([, text, level], place) => {
    const value = list.children[place].lastChild;
    if (value.textContent !== text) value.textContent = text;
    value.dataset.level = level;
  });
}

/** Show how the connection is. Only its state is announced, not each second of the countdown. */
function connection(state) {
  clearInterval(countdown);
  const says = {
    live: "Live",
    connecting: state.attempt ? "Connecting again" : "Connecting",
    waiting: `Not connected: ${state.why}`,
  }[state.name];
  id("connection").dataset.state = state.name;
  if (id("connection-state").textContent !== says) id("connection-state").textContent = says;
  id("connection-retry").hidden = state.name !== "waiting";
  const left = id("connection-countdown");
  left.textContent = "";
  document.body.dataset.stale = String(state.name === "waiting");
  if (state.name === "waiting") {
    const until = performance.now() + state.wait;
    const tell = () => {
      left.textContent = `, next try in ${Math.max(0, Math.ceil((until - performance.now()) / 1000))} s`;
    };
    tell();
    countdown = setInterval(tell, 1000);
  }
  if (state.name === "live" && pages.failed) pages.older();
}

/** Whether keys are being typed into a field. */
const typing = (target) => target.closest("input, select, textarea") !== null;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || id("token").open) return;
  if (typing(event.target)) return;
  if (event.key === "Escape" && panel.seq !== null && !id("flagged").hidden) {
    closeDecision();
    return;
  }
  if (event.key === "/" && !id("flagged").hidden) {
    filters.search.focus();
    event.preventDefault();
  }
  const within = event.target.closest("#grid, #decision") !== null;
  if (within && panel.seq !== null) {
    if (event.key === "a") panel.label("anomaly");
    if (event.key === "n") panel.label("normal");
    if (event.key === "j") feed.step(1);
    if (event.key === "k") feed.step(-1);
  }
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  id("main").focus();
});
id("older").addEventListener("click", () => pages.older());
id("connection-retry").addEventListener("click", () => stream.retry());
let typed = null;
filters.addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(refilter, 150);
});
filters.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.target.type === "reset") return;
  event.preventDefault();
  clearTimeout(typed);
  refilter();
  feed.focus();
});
filters.addEventListener("reset", () => setTimeout(refilter));
flagged.addEventListener("change", describeFeed);
window.addEventListener("hashchange", route);

route();
began = true;
await pages.restart(filter());
stream.last = flagged.last ?? 0;
stream.run();
