/** The purchases of a window, oldest to newest, against the threshold; the purchase itself comes last. */

import { colours, font, picture, rem, ticks } from "./canvas.js";
import { element, readable } from "./dom.js";
import { compact, decimalsOf, moment, money, plural } from "./format.js";

const SHAPES = ["circle", "circle", "square", "diamond", "triangle"];

/** A mark; the shape tells the hop, so that it can be told without colour. */
export function mark(context, shape, x, y, size) {
  context.beginPath();
  if (shape === "circle") context.arc(x, y, size, 0, 2 * Math.PI);
  else if (shape === "square") context.rect(x - size * 0.9, y - size * 0.9, size * 1.8, size * 1.8);
  else {
    const corners = shape === "diamond" ? 4 : 3;
    for (let corner = 0; corner < corners; corner += 1) {
      const angle = (2 * Math.PI * corner) / corners - Math.PI / 2;
      context.lineTo(x + 1.35 * size * Math.cos(angle), y + 1.35 * size * Math.sin(angle));
    }
    context.closePath();
  }
  context.fill();
}

/** The shape of a hop. */
export const shapeOf = (hop) => SHAPES[Math.min(hop, SHAPES.length - 1)];

const short = (value, step) => (value >= 100_000 ? compact(value) : value.toFixed(decimalsOf(step)));

/** The chart of an explanation. */
export function windowChart(why) {
  const bought = [...why.window].reverse();
  const numbers = bought.map((one) => Number(one.amount));
  const own = Number(why.amount);
  const threshold = why.threshold === null ? null : Number(why.threshold);
  const mean = why.mean === null ? null : Number(why.mean);
  const highest = Math.max(own, threshold ?? 0, ...numbers) * 1.08 || 1;
  const readout = element("p", { class: "readout muted", "aria-hidden": "true" });
  const resting = bought.length
    ? `Oldest ${moment(bought[0].timestamp)}, newest ${moment(bought.at(-1).timestamp)}.`
    : "The window is empty.";
  readout.textContent = resting;
  let near = null;
  let spots = [];

  const draw = (context, width, height) => {
    const colour = colours();
    const unit = rem();
    const steps = ticks(highest, Math.max(2, height / (3.2 * unit)));
    const step = steps[1] ?? 1;
    context.font = font(0.8);
    const left = Math.max(...steps.map((value) => context.measureText(short(value, step)).width)) + 0.9 * unit;
    const [right, top, bottom] = [width - 1.4 * unit, 0.8 * unit, height - 1.7 * unit];
    const down = (value) => bottom - (value / highest) * (bottom - top);
    const across = (place) => left + unit * 0.6 + ((right - left - 0.6 * unit) * place) / Math.max(1, bought.length);
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const value of steps) {
      context.fillStyle = colour("line");
      context.fillRect(left, Math.round(down(value)), right - left + unit, 1);
      context.fillStyle = colour("muted");
      context.fillText(short(value, step), left - 0.5 * unit, down(value));
    }
    if (threshold !== null) {
      context.fillStyle = colour("allowed");
      context.fillRect(left, down(threshold), right - left + unit, bottom - down(threshold));
    }
    const radius = Math.max(2, Math.min(0.28 * unit, (right - left) / (2.6 * (bought.length + 1))));
    spots = bought.map((one, place) => ({ x: across(place), y: down(numbers[place]), one }));
    for (const { x, y, one } of spots) {
      context.fillStyle = colour(`hop-${Math.min(one.hop, 3)}`);
      mark(context, shapeOf(one.hop), x, y, near?.one === one ? radius * 1.8 : radius);
    }
    const line = (value, name, dashed, text, above) => {
      context.strokeStyle = colour(name);
      context.lineWidth = 0.11 * unit;
      context.setLineDash(dashed ? [0.4 * unit, 0.25 * unit] : []);
      context.beginPath();
      context.moveTo(left, down(value));
      context.lineTo(right + unit, down(value));
      context.stroke();
      context.setLineDash([]);
      context.font = font(0.8, 600);
      context.textAlign = "left";
      const [x, y] = [left + 0.5 * unit, down(value) + (above ? -0.7 : 0.75) * unit];
      context.lineWidth = 0.28 * unit;
      context.lineJoin = "round";
      context.strokeStyle = colour("surface");
      context.strokeText(text, x, y);
      context.fillStyle = colour(name);
      context.fillText(text, x, y);
    };
    if (mean !== null)
      line(
        mean,
        "ink",
        false,
        `mean ${money(why.mean)}`,
        threshold === null || down(mean) - down(threshold) > 2 * unit,
      );
    if (threshold !== null) line(threshold, "alarm", true, `threshold ${money(why.threshold)}`, true);
    const [x, y] = [across(bought.length), down(own)];
    context.fillStyle = colour(why.verdict === "flagged" ? "alarm" : "good");
    mark(context, "diamond", x, y, 0.42 * unit);
    context.font = font(0.85, 700);
    context.textAlign = "right";
    const beside = [money(why.amount), x - 0.8 * unit, Math.max(y, top + 0.3 * unit)];
    context.strokeText(...beside); // a gap around it, also where it lies on the threshold
    context.fillText(...beside);
    context.font = font(0.8);
    context.fillStyle = colour("muted");
    context.textAlign = "left";
    context.fillText("oldest", left, height - 0.7 * unit);
    context.textAlign = "right";
    context.fillText("this purchase", right + unit, height - 0.7 * unit);
  };

  const pointed = (x, y) => {
    const reach = (2 * rem()) ** 2;
    near = null;
    let closest = reach;
    for (const spot of x === null ? [] : spots) {
      const distance = (spot.x - x) ** 2 + (spot.y - y) ** 2;
      if (distance < closest) [near, closest] = [spot, distance];
    }
    readout.textContent = near
      ? `User ${readable(near.one.user)}, ${plural(near.one.hop, "hop")} away, paid ${money(near.one.amount)} on ${moment(near.one.timestamp)}`
      : resting;
    chart.redraw();
  };
  const says = `${plural(bought.length, "purchase")} of the network; mean ${why.mean ?? "none"}, standard deviation ${why.sd ?? "none"}, threshold ${why.threshold ?? "none"}. This purchase: ${why.amount}.`;
  const chart = picture(says, draw, { className: "window", pointed });
  return element("div", {}, chart.holder, readout);
}
