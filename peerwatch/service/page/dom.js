/** Elements from plain data. Whatever comes from the service is set as text, never as HTML. */

/**
 * An element with its children; strings become text nodes, and what is null or false is left out.
 * Keys of `properties`: `on…` is a listener, `style` an object, `class` and those with a dash or of ARIA are attributes,
 * others are properties of the element.
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(made.style, value);
    else if (key === "class") made.className = value;
    else if (key.includes("-") || key === "role" || key === "scope") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Control characters and those that turn the direction of text, which an id may hold. */
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** An id as one can read it: what would be invisible, or would turn other text around, is written as its code. */
export const readable = (id) =>
  String(id).replace(UNSEEN, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** A user's id, shielded from the direction of the text around it. */
export const idOf = (id) => element("bdi", { class: "id", title: readable(id) }, readable(id));

/** A link to a user, as of an event if one is given. */
export const userLink = (id, at = null) => element("a", { href: userHref(id, at) }, idOf(id));

/** Where the view of a user is. */
export const userHref = (id, at = null) => `#/user/${encodeURIComponent(id)}${at === null ? "" : `/${at}`}`;

/** Where the view of a decision is. */
export const decisionHref = (seq) => `#/flagged/${seq}`;

/** A table with a caption for those who do not see it; each row is a list of cells. */
export function table(caption, headings, rows, properties = {}) {
  const head = headings.map(({ text, right }) => element("th", { scope: "col", class: right ? "right" : "" }, text));
  const body = rows.map((cells) =>
    element(
      "tr",
      {},
      cells.map((cell, place) => element("td", { class: headings[place].right ? "right" : "" }, cell)),
    ),
  );
  return element(
    "div",
    { class: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
    element(
      "table",
      properties,
      element("caption", { class: "unseen" }, caption),
      element("thead", {}, element("tr", {}, head)),
      element("tbody", {}, body),
    ),
  );
}

/** A heading with what it is about, and what follows. */
export const card = (title, properties, ...children) =>
  element("section", { ...properties, class: `card ${properties.class ?? ""}` }, element("h3", {}, title), children);
