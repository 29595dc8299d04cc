/** The service's event stream, read by fetch, because EventSource cannot send a token. */

import { Problem, isAbort, send, withQuery } from "./api.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;
/** The service sends a status each second; a connection that is silent for so long is dead. */
const SILENCE = 10_000;
/** Milliseconds of work after which the browser gets a turn. */
const SLICE = 8;

/** Splits text/event-stream into events, however it is cut into pieces. */
export class Parser {
  #rest = "";
  #event = { type: "message", data: [], id: null };

  /** The events that are complete with this text, in order. */
  *feed(text) {
    this.#rest += text;
    let start = 0;
    const ends = /[\r\n]/g;
    for (;;) {
      ends.lastIndex = start;
      const end = ends.exec(this.#rest)?.index ?? -1;
      // a carriage return that comes last may be half of a line's end
      if (end < 0 || (this.#rest[end] === "\r" && end + 1 === this.#rest.length)) break;
      const line = this.#rest.slice(start, end);
      start = end + (this.#rest.startsWith("\r\n", end) ? 2 : 1);
      const event = this.#line(line);
      if (event) yield event;
    }
    this.#rest = this.#rest.slice(start);
  }

  #line(line) {
    if (line === "") {
      const { type, data, id } = this.#event;
      this.#event = { type: "message", data: [], id: null };
      return data.length ? { type, id, data: data.join("\n") } : null;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#event.type = value;
    else if (field === "data") this.#event.data.push(value);
    else if (field === "id") this.#event.id = value;
    return null;
  }
}

/** Lets the browser draw and answer keys before the work goes on. */
const breathe = () => (globalThis.scheduler?.yield ? scheduler.yield() : new Promise((go) => setTimeout(go)));

/**
 * Reads the stream for as long as the page is open, and connects again when it ends.
 *
 * `heard(type, data)` gets each event, and `changed(state)` the connection: `{name, wait, attempt, why}` with the name
 * connecting, live or waiting.
 */
export class EventStream {
  #last = null;
  #attempt = 0;
  #wake = () => {};
  #heard;
  #changed;

  constructor(heard, changed) {
    this.#heard = heard;
    this.#changed = changed;
  }

  /** Go on behind this event; null for the newest ones only. */
  set last(seq) {
    this.#last = seq;
  }

  /** Connect now instead of later. */
  retry() {
    this.#wake();
  }

  async run() {
    for (;;) {
      let why = "the service closed the connection";
      try {
        await this.#read();
      } catch (error) {
        if (error instanceof Problem) why = error.message;
        else why = isAbort(error) ? "the service has fallen silent" : "the service does not answer";
      }
      await this.#wait(why);
    }
  }

  async #wait(why) {
    const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#attempt);
    const wait = longest * (0.75 + Math.random() / 4); // many pages do not come back in one moment
    this.#attempt += 1;
    this.#changed({ name: "waiting", wait, attempt: this.#attempt, why });
    await new Promise((go) => {
      const timer = setTimeout(go, wait);
      this.#wake = () => {
        clearTimeout(timer);
        go();
      };
    });
  }

  /** An event that cannot be handled is reported; the connection is none the worse for it. */
  #tell(type, data) {
    try {
      this.#heard(type, JSON.parse(data));
    } catch (error) {
      reportError(error);
    }
  }

  async #read() {
    this.#changed({ name: "connecting", attempt: this.#attempt });
    const silence = new AbortController();
    const headers = { Accept: "text/event-stream" };
    if (this.#last !== null) headers["Last-Event-ID"] = String(this.#last);
    let timer = setTimeout(() => silence.abort(), SILENCE);
    try {
      const path = withQuery("events", { after: this.#last });
      const response = await send(path, { headers, cache: "no-store", signal: silence.signal });
      if (!response.ok) throw new Problem(response.status, response.statusText);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new Parser();
      let began = performance.now();
      for (let first = true; ; first = false) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE);
        if (first) {
          this.#attempt = 0;
          this.#changed({ name: "live" });
        }
        for (const { type, id, data } of parser.feed(value)) {
          if (id) this.#last = id;
          this.#tell(type, data);
          if (performance.now() - began > SLICE) {
            await breathe();
            began = performance.now();
          }
        }
      }
    } finally {
      clearTimeout(timer);
    }
  }
}
