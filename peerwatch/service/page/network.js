/** The picture of a network: the buyer in the middle, everybody else by hop, those whose purchases count in colour. */

import { colours, font, picture, rem } from "./canvas.js";
import { element, readable, userHref } from "./dom.js";
import { count, plural } from "./format.js";
import { FORCED, forces, rings, treeOf } from "./network_layout.js";
import { mark, shapeOf } from "./window_chart.js";

/** Above so many members, only the links to those that count are drawn. */
const ALL_LINKS = 4000;
const CALM = matchMedia("(prefers-reduced-motion: reduce)");

/** "23 at hop 1, 1,772 at hop 2". */
export function byHop(members) {
  const hops = new Map();
  for (const { hop } of members) hops.set(hop, (hops.get(hop) ?? 0) + 1);
  return [...hops]
    .sort(([a], [b]) => a - b)
    .map(([hop, number]) => `${count(number)} at hop ${hop}`)
    .join(", ");
}

const short = (text) => (text.length > 14 ? `${text.slice(0, 13)}…` : text);

/**
 * The picture, with a line below it that tells of the member that is pointed at. `weights` gives for each user that
 * counts how much; `alarm` colours the one in the middle; `counts` says what is in colour.
 */
export function networkPicture(user, members, weights, { alarm, counts, at = null }) {
  const nodes = treeOf(user, members);
  rings(nodes);
  const deepest = Math.max(1, ...nodes.map((node) => node.hop));
  for (const node of nodes) node.weight = weights.get(node.user) ?? 0;
  for (const node of nodes) if (node.weight) for (let up = node; up; up = up.parent) up.leads = true;
  const counted = nodes.filter((node) => node.weight && node.hop).sort((a, b) => b.weight - a.weight);
  const readout = element("p", { class: "readout muted", "aria-hidden": "true" });
  const resting = nodes.length > 1 ? `In colour: ${counts}.` : "Nobody is within reach.";
  readout.textContent = resting;
  let near = null;
  let cut = new Set();
  let place = () => [0, 0];

  const draw = (context, width, height) => {
    const colour = colours();
    const unit = rem();
    const scale = (Math.min(width, height) / 2 - 2.2 * unit) / (deepest + 0.1);
    const reach = Math.min(1.7, (width / 2 - 3 * unit) / (scale * (deepest + 0.1))); // a wide picture is used
    place = (node) => [width / 2 + node.x * scale * Math.max(1, reach), height / 2 + node.y * scale];
    context.lineWidth = 1;
    context.strokeStyle = colour("line");
    for (let hop = 1; hop <= deepest; hop += 1) {
      context.beginPath();
      context.ellipse(width / 2, height / 2, hop * scale * Math.max(1, reach), hop * scale, 0, 0, 2 * Math.PI);
      context.stroke();
    }
    const links = (leads, style, thickness) => {
      context.strokeStyle = colour(style);
      context.lineWidth = thickness;
      context.beginPath();
      for (const node of nodes) {
        if (!node.parent || Boolean(node.leads) !== leads) continue;
        context.moveTo(...place(node.parent));
        context.lineTo(...place(node));
      }
      context.stroke();
    };
    if (nodes.length <= ALL_LINKS) links(false, "faint", 1);
    links(true, "path", 0.1 * unit);
    const small = nodes.length > 1000 ? 0.1 * unit : 0.17 * unit;
    context.fillStyle = colour("idle");
    for (const node of nodes) {
      if (node.weight || !node.hop) continue;
      const [x, y] = place(node);
      context.fillRect(x - small, y - small, 2 * small, 2 * small);
    }
    for (const node of counted) {
      context.fillStyle = colour(`hop-${Math.min(node.hop, 3)}`);
      mark(context, shapeOf(node.hop), ...place(node), (0.2 + 0.11 * Math.min(4, node.weight)) * unit);
    }
    context.strokeStyle = colour("alarm");
    context.lineWidth = 0.12 * unit;
    for (const node of nodes) {
      if (!cut.has(node.user)) continue;
      context.beginPath();
      context.arc(...place(node), 0.45 * unit, 0, 2 * Math.PI);
      context.stroke();
    }
    context.fillStyle = colour(alarm ? "alarm" : "accent");
    mark(context, "diamond", width / 2, height / 2, 0.5 * unit);
    label(context, colour, unit, width, height);
  };

  /** Names where there is room for them: first the buyer, then who leads to many or bought much. */
  const label = (context, colour, unit, width, height) => {
    const taken = [];
    const free = (box) =>
      box[0] > 0 &&
      box[1] > 0 &&
      box[2] < width &&
      box[3] < height &&
      taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
    context.font = font(0.8, 500);
    context.textBaseline = "middle";
    context.lineJoin = "round";
    const leaders = nodes.filter((node) => node.leads && node.hop && !node.weight);
    const wanted = [nodes[0], ...(near ? [near] : []), ...leaders, ...counted];
    for (const node of wanted) {
      const text = short(readable(node.user));
      const wide = context.measureText(text).width;
      const [x, y] = place(node);
      const right = x >= width / 2;
      const from = right ? x + 0.65 * unit : x - 0.65 * unit - wide;
      const box = [from - 2, y - 0.55 * unit, from + wide + 2, y + 0.55 * unit];
      if (!free(box) && node !== near) continue;
      taken.push(box);
      context.textAlign = "left";
      context.lineWidth = 0.25 * unit;
      context.strokeStyle = colour("surface");
      context.strokeText(text, from, y);
      context.fillStyle = colour(node === near ? "accent" : "ink");
      context.fillText(text, from, y);
      if (taken.length > 60) break;
    }
  };

  const closest = (x, y) => {
    let [found, distance] = [null, (1.2 * rem()) ** 2];
    for (const node of nodes) {
      const [left, top] = place(node);
      const away = (left - x) ** 2 + (top - y) ** 2;
      if (away < distance) [found, distance] = [node, away];
    }
    return found;
  };
  const pointed = (x, y) => {
    const found = x === null ? null : closest(x, y);
    if (found === near) return;
    near = found;
    drawn.holder.classList.toggle("points", Boolean(near?.hop));
    readout.textContent = near?.hop
      ? `${near.path.map(readable).join(" – ")}${near.weight ? `: ${plural(near.weight, "purchase")} in the window` : ""}`
      : resting;
    drawn.redraw();
  };
  const pressed = (x, y) => {
    const found = closest(x, y);
    if (found?.hop) location.hash = userHref(found.user, at);
  };
  const says = `The network of user ${readable(user)}: ${members.length ? byHop(members) : "nobody"}.`;
  const drawn = picture(says, draw, { className: "network", pointed, pressed });
  if (nodes.length > 2 && nodes.length <= FORCED) {
    drawn.holder.dataset.layout = "forces";
    requestAnimationFrame(() => {
      forces(nodes, () => {
        if (!drawn.holder.isConnected) return false;
        if (!CALM.matches) drawn.redraw();
        return true;
      }).then(() => {
        drawn.holder.dataset.settled = "true";
        drawn.redraw();
      });
    });
  } else {
    drawn.holder.dataset.layout = "rings";
    drawn.holder.dataset.settled = "true";
  }
  const whole = element("div", {}, drawn.holder, readout);
  /** Ring the members with these ids, in the colour of an alarm. */
  whole.cut = (users) => {
    cut = users;
    whole.dataset.cut = String(users.size);
    drawn.redraw();
  };
  return whole;
}
