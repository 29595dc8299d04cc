/** A picture that is drawn again when its size, the colour scheme or the sharpness of the screen changes. */

import { element } from "./dom.js";

/** How each picture is drawn; one that has left the page is forgotten with its element. */
const drawings = new WeakMap();
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) drawings.get(target)?.();
});
for (const query of ["(prefers-color-scheme: dark)", "(prefers-contrast: more)"]) {
  matchMedia(query).addEventListener("change", () => {
    for (const holder of document.querySelectorAll(".picture")) drawings.get(holder)?.();
  });
}

/** The colours of the style sheet, by name. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

/** The size of a rem, and so of text, in pixels. */
export const rem = () => parseFloat(getComputedStyle(document.documentElement).fontSize);

/** A font of the page's own family. */
export const font = (size, weight = 400) => `${weight} ${size * rem()}px ${getComputedStyle(document.body).fontFamily}`;

/**
 * A canvas with a text alternative. `draw(context, width, height)` works in pixels of the page; `pointed(x, y)` gets
 * where the mouse or a finger is, or null where it left.
 */
export function picture(alternative, draw, { className = "", pointed = null, pressed = null } = {}) {
  const canvas = element("canvas", { role: "img", "aria-label": alternative });
  const holder = element("div", { class: `picture ${className}` }, canvas);
  const redraw = () => {
    if (!holder.isConnected) return;
    const { clientWidth: width, clientHeight: height } = holder;
    if (!width || !height) return;
    const scale = window.devicePixelRatio;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    draw(context, width, height);
  };
  drawings.set(holder, redraw);
  sizes.observe(holder);
  if (pointed) {
    canvas.addEventListener("pointermove", (event) => pointed(event.offsetX, event.offsetY));
    canvas.addEventListener("pointerleave", () => pointed(null, null));
  }
  if (pressed) canvas.addEventListener("click", (event) => pressed(event.offsetX, event.offsetY));
  return { holder, redraw };
}

/** Round numbers from 0 to at least `highest`, about as many as asked for. */
export function ticks(highest, wanted) {
  if (!(highest > 0) || !Number.isFinite(highest)) return [0];
  const rough = highest / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  return Array.from({ length: Math.floor(highest / step) + 1 }, (_, place) => place * step);
}
