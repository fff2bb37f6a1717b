// The status, live: a message a second over a stream that comes back by itself.

const FIRST_DELAY = 500; // milliseconds, as all that follow
const LONGEST_DELAY = 5_000;
const SILENCE = 5_000; // with a message a second, what is silent for so long is dead

/**
 * @typedef {object} Link
 * @property {"connecting" | "live" | "lost" | "refused" | "off"} name
 * refused: it waits for another token; off: the server has no status page.
 * @property {string} reason - for people; empty while all is well
 */

export class StatusStream {
  #query = "";
  #token;
  #heard;
  #changed;
  #attempt = 0; // failures in a row
  #abort = new AbortController();
  #silence; // timer
  #retry; // timer
  #final = false; // only another token or query changes anything

  /**
   * @param {object} options
   * @param {string | null} options.token
   * @param {(status: object, isFirst: boolean) => void} options.heard - isFirst: of a new connection
   * @param {(link: Link) => void} options.changed
   */
  constructor({ token, heard, changed }) {
    this.#token = token;
    this.#heard = heard;
    this.#changed = changed;
    const now = () => this.#retry !== undefined && this.#open();
    addEventListener("online", now);
    document.addEventListener("visibilitychange", () => document.hidden || now());
    this.#open();
  }

  /** Connects again, with another token. */
  identify(token) {
    this.#token = token;
    this.#changed({ name: "connecting", reason: "" });
    this.#open();
  }

  /** Connects again, for the events of one channel and one match; an empty string is for all. */
  filter(channel, match) {
    const query = new URLSearchParams(Object.entries({ channel, match }).filter(([, value]) => value));
    this.#query = String(query);
    if (!this.#final) this.#open();
  }

  #open() {
    this.#abort.abort();
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#final = false;
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    this.#expect(signal);
    this.#read(signal).then((end) => signal.aborted || this.#lost(end));
  }

  #expect(signal) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => signal.aborted || this.#lost({ reason: "the server is silent" }), SILENCE);
  }

  // fetch rather than EventSource: it says why it was refused, and its token stays out of the URL.
  async #read(signal) {
    const headers = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
    const url = `api/status/events?${this.#query}`;
    const response = await fetch(url, { headers, cache: "no-store", signal }).catch(() => null);
    if (!response) return { reason: "the server can't be reached" };
    if (!response.ok) return refusal(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let isFirst = true;
    for (;;) {
      const { value = "", done } = await reader.read().catch(() => ({ done: true }));
      if (done || signal.aborted) return { reason: "the server closed the connection" };
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines.filter((each) => each.startsWith("data: "))) {
        this.#take(JSON.parse(line.slice(6)), isFirst, signal);
        isFirst = false;
      }
    }
  }

  #take(status, isFirst, signal) {
    this.#expect(signal);
    if (isFirst) {
      this.#attempt = 0;
      this.#changed({ name: "live", reason: "" });
    }
    this.#heard(status, isFirst);
  }

  #lost({ status, reason }) {
    this.#abort.abort();
    clearTimeout(this.#silence);
    this.#final = status === 401 || status === 403 || status === 404;
    if (this.#final) {
      this.#changed({ name: status === 404 ? "off" : "refused", reason });
      return;
    }
    this.#attempt += 1;
    const ceiling = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** (this.#attempt - 1));
    this.#retry = setTimeout(() => this.#open(), ceiling * (0.5 + Math.random() / 2));
    this.#changed({ name: "lost", reason });
  }
}

async function refusal(response) {
  const answer = await response.json().catch(() => ({}));
  return { status: response.status, reason: String(answer.error ?? `HTTP ${response.status}`) };
}
