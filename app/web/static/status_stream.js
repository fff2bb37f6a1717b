// Receives the status once a second over server-sent events, and reconnects automatically, but not while the page is
// hidden. When the device or the page wakes up, the connection may be dead: a new one takes its place.

import { refusal } from "./notifymux/transports.js";
import { dropDeadConnections, isHidden, onWake } from "./notifymux/waking.js";

const INITIAL_DELAY_MS = 500;
const MAX_DELAY_MS = 5_000;
const IDLE_TIMEOUT_MS = 5_000; // the server sends a message every second
const WAKE_TIMEOUT_MS = 3_000; // until the first message after waking up

/**
 * @typedef {object} Connection
 * @property {"connecting" | "live" | "lost" | "refused" | "off"} name
 * refused: another token is needed; off: the server has no status page.
 * @property {string} reason - for people; empty while connecting and live
 */

export class StatusStream {
  #query = "";
  #token;
  #onStatus;
  #onConnection;
  #openedAt; // when the last attempt began
  #attempt = 0; // consecutive failures
  #abortController = new AbortController();
  #idleTimer;
  #retryTimer;
  #isRefused = false; // retrying is useless without another token

  /**
   * @param {object} options
   * @param {string | null} options.token
   * @param {(status: object, isFirst: boolean) => void} options.onStatus - isFirst: the first message of a connection
   * @param {(connection: Connection) => void} options.onConnection - called when the connection changes
   */
  constructor({ token, onStatus, onConnection }) {
    this.#token = token;
    this.#onStatus = onStatus;
    this.#onConnection = onConnection;
    onWake(() => this.#wake(), new AbortController().signal);
    this.#open();
  }

  /** Reconnects with another token. */
  setToken(token) {
    this.#token = token;
    this.#onConnection({ name: "connecting", reason: "" });
    this.#open();
  }

  /** Reconnects for the events of one channel and one match; an empty string selects all. */
  setFilter(channel, match) {
    const query = new URLSearchParams(Object.entries({ channel, match }).filter(([, value]) => value));
    this.#query = String(query);
    if (!this.#isRefused) this.#open();
  }

  #wake() {
    const isFresh = Date.now() - this.#openedAt < WAKE_TIMEOUT_MS && this.#retryTimer === undefined;
    if (this.#isRefused || isFresh) return;
    this.#attempt = 0;
    this.#open(WAKE_TIMEOUT_MS);
    dropDeadConnections(document.baseURI);
  }

  #open(timeout = IDLE_TIMEOUT_MS) {
    this.#abortController.abort();
    clearTimeout(this.#retryTimer);
    this.#retryTimer = undefined;
    this.#isRefused = false;
    this.#abortController = new AbortController();
    const { signal } = this.#abortController;
    this.#openedAt = Date.now();
    this.#restartIdleTimer(signal, timeout);
    this.#read(signal).then((end) => signal.aborted || this.#onClose(end));
  }

  #restartIdleTimer(signal, timeout = IDLE_TIMEOUT_MS) {
    clearTimeout(this.#idleTimer);
    const onTimeout = () => signal.aborted || this.#onClose({ reason: "the server sends nothing" });
    this.#idleTimer = setTimeout(onTimeout, timeout);
  }

  // Uses fetch instead of EventSource: fetch gives the status of a refused request and sends the token in a header.
  async #read(signal) {
    const headers = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
    const url = `api/status/events?${this.#query}`;
    const response = await fetch(url, { headers, cache: "no-store", signal }).catch(() => null);
    if (!response) return { reason: "the server can't be reached" };
    if (!response.ok) return refusal(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    let isFirst = true;
    for (;;) {
      const { value = "", done } = await reader.read().catch(() => ({ done: true }));
      if (done || signal.aborted) return { reason: "the server closed the connection" };
      const lines = (buffer + value).split("\n");
      buffer = lines.pop();
      for (const line of lines.filter((each) => each.startsWith("data: "))) {
        this.#onMessage(JSON.parse(line.slice(6)), isFirst, signal);
        isFirst = false;
      }
    }
  }

  #onMessage(status, isFirst, signal) {
    this.#restartIdleTimer(signal);
    if (isFirst) {
      this.#attempt = 0;
      this.#onConnection({ name: "live", reason: "" });
    }
    this.#onStatus(status, isFirst);
  }

  #onClose({ status, reason }) {
    this.#abortController.abort();
    clearTimeout(this.#idleTimer);
    this.#isRefused = status === 401 || status === 403 || status === 404;
    if (this.#isRefused) {
      this.#onConnection({ name: status === 404 ? "off" : "refused", reason });
      return;
    }
    this.#attempt += 1;
    const maxDelay = Math.min(MAX_DELAY_MS, INITIAL_DELAY_MS * 2 ** (this.#attempt - 1));
    this.#retryTimer = setTimeout(() => isHidden() || this.#open(), maxDelay * (0.5 + Math.random() / 2));
    this.#onConnection({ name: "lost", reason });
  }
}
