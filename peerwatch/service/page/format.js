/** Numbers and times as text. Amounts are decimal text of any length and are compared as such. */

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** 20018 as 20,018. */
export const count = (number) => (number === null || number === undefined ? "–" : WHOLE.format(number));

/** 1234567 as 1.2M. */
export const compact = (number) => (Math.abs(number) < 10_000 ? WHOLE.format(number) : SHORT.format(number));

/** A share of one as a percentage. */
export const percent = (share, digits = 1) => (Number.isFinite(share) ? `${(100 * share).toFixed(digits)} %` : "–");

/** "1 purchase", "2 purchases". */
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Seconds, with one unit that suits. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0005) return "0 s";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** Bytes, with one unit that suits. */
export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (number >= 1024 && place < units.length - 1) {
    number /= 1024;
    place += 1;
  }
  return `${place ? number.toFixed(1) : count(number)} ${units[place]}`;
}

/** A time as the log may have written it, in UTC: the date, a space, and the time without empty fractions. */
export const moment = (iso) =>
  iso
    ? iso
        .replace("T", " ")
        .replace(/(\.\d*?)0*Z$/, "$1Z")
        .replace(/\.?Z$/, "")
    : "–";

/** Digits in groups of three, with thin spaces between them, as long numbers are read and broken into lines. */
export const grouped = (digits) => String(digits).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");

/** An amount with its whole part in groups. */
export function money(amount) {
  if (amount === null || amount === undefined) return "–";
  const [whole, fraction] = String(amount).split(".");
  return whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",") + (fraction === undefined ? "" : `.${fraction}`);
}

/** Whether text is an amount that can be compared. */
export const isAmount = (text) => /^\d+(\.\d*)?$|^\.\d+$/.test(text);

/** Below 0, 0 or above 0 as the first of two amounts is smaller, equal or larger; exact at any length. */
export function compareAmounts(a, b) {
  const [left, right] = [a, b].map((text) => {
    const [whole, fraction = ""] = String(text).split(".");
    return [whole.replace(/^0+/, ""), fraction.replace(/0+$/, "")];
  });
  if (left[0].length !== right[0].length) return left[0].length - right[0].length;
  for (const part of [0, 1]) if (left[part] !== right[part]) return left[part] < right[part] ? -1 : 1;
  return 0;
}

/** How many standard deviations above the mean an amount is, as text; nothing if there is no such number. */
export function deviations({ amount, mean, sd }) {
  const above = (Number(amount) - Number(mean)) / Number(sd);
  if (mean === null || sd === null || !Number.isFinite(above)) return null;
  return `${above < 0 ? "−" : "+"}${Math.abs(above) < 1000 ? Math.abs(above).toFixed(1) : compact(Math.abs(above))} sd`;
}

/** A decimal number or a fraction as a pair of integers. */
export function ratioOf(text) {
  if (text.includes("/")) return text.split("/").map(BigInt);
  const [whole, fraction = ""] = text.split(".");
  return [BigInt(whole + fraction), 10n ** BigInt(fraction.length)];
}

/** An amount in millionths. */
export function millionths(amount) {
  const [whole, fraction = ""] = String(amount).split(".");
  return BigInt(whole + fraction.padEnd(6, "0").slice(0, 6));
}

/** The number of decimals that shows the steps of an axis. */
export const decimalsOf = (step) => (step >= 1 ? 0 : Math.min(6, Math.ceil(-Math.log10(step))));
