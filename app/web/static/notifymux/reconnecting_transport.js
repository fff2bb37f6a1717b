// Keeps a WebSocket or an event stream open: reconnects with exponential backoff and jitter, but not while the page is
// hidden, and asks whether the connection is alive when the device or the page wakes up. If WebSockets fail to open, it
// uses server-sent events instead.

import { openEventStream, openWebSocket } from "./transports.js";
import { ANSWER_TIMEOUT_MS, dropDeadConnections, isHidden, onWake } from "./waking.js";

const INITIAL_DELAY_MS = 500;
const MAX_DELAY_MS = 15_000;
const STABLE_AFTER_MS = 5_000; // a connection that was live for longer resets the backoff
const OPEN_TIMEOUT_MS = 15_000; // until the first message
const IDLE_TIMEOUT_PINGS = 2.5; // ping intervals without a message
const WEBSOCKET_ATTEMPTS = 2; // failed attempts before every second attempt uses server-sent events

const CLOSE_EXPIRED = 3000;
const CLOSE_REPLACED = 3510;
const REFUSED_STATUSES = [401, 403, 404];
const TOKEN_STATUSES = [401, 403]; // another token may help
const NOTHING = { send: () => false, close() {} };

/**
 * @typedef {object} Callbacks
 * @property {(useEventStream: boolean) => URL} begin - a new transport opens: returns its address
 * @property {() => void} onOpen - the WebSocket is open; an event stream does not call it
 * @property {(message: object) => void} onMessage - pings and pongs are not passed on
 * @property {() => void} onLost - what the last `begin` began has ended, on either side
 * @property {(state: State) => void} onState - `refused` and `replaced` are final
 */

export class ReconnectingTransport {
  #base;
  #token;
  #socketClass;
  #idleTimeout; // milliseconds
  #callbacks;
  #transport = null; // open or opening; null while waiting for the next attempt
  #isNew = true; // until the first message or failure
  #liveSince = null; // null until the first message
  #openedAt; // when the last attempt began
  #isAsking = false; // since the page woke up, until an answer proves that the connection is alive
  #attempt = 0; // consecutive failures
  #refusals = 0; // consecutive ones
  #unopened = 0; // consecutive connections that delivered no message
  #idleTimer;
  #retryTimer = null;
  #abortController = new AbortController(); // removes the listeners

  /**
   * @param {{ base: URL, token?: any, pingInterval?: number, WebSocket?: typeof WebSocket }} options
   * @param {Callbacks} callbacks
   */
  constructor(options, callbacks) {
    this.#base = options.base;
    this.#token = options.token;
    this.#idleTimeout = (options.pingInterval ?? 30) * 1000 * IDLE_TIMEOUT_PINGS;
    this.#socketClass = options.WebSocket ?? globalThis.WebSocket;
    this.#callbacks = callbacks;
    this.#listen();
    this.#open();
  }

  /** Sends a text over an open WebSocket; returns whether it did. */
  send(text) {
    return this.#transport?.send(text) ?? false;
  }

  /** Makes another request of the event stream at once, instead of the one that is open or opening. */
  restart() {
    this.#closeTransport();
    this.#unopened = WEBSOCKET_ATTEMPTS;
    this.#open();
  }

  /** Closes the connection permanently. The state does not change. */
  close() {
    this.#abortController.abort();
    clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    this.#closeTransport();
  }

  #setState(state) {
    this.#isNew = false;
    this.#callbacks.onState(state);
  }

  async #open(timeout = OPEN_TIMEOUT_MS) {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    const placeholder = { ...NOTHING }; // identifies this attempt while the token is fetched
    this.#transport = placeholder;
    this.#openedAt = Date.now();
    this.#restartIdleTimer(timeout);
    let token;
    try {
      token = typeof this.#token === "function" ? await this.#token() : this.#token;
    } catch (error) {
      if (this.#transport === placeholder) this.#onClose({ reason: `no token: ${error?.message ?? error}` });
      return;
    }
    if (this.#transport === placeholder) this.#connect(token);
  }

  #connect(token) {
    // WebSocket attempts continue in between, because a failed attempt may only mean that the network is down.
    const useEventStream = !this.#socketClass || (this.#unopened >= WEBSOCKET_ATTEMPTS && this.#unopened % 2 === 0);
    const openTransport = useEventStream ? openEventStream : openWebSocket;
    const transport = openTransport(this.#url(useEventStream, token), {
      token,
      socketClass: this.#socketClass,
      onOpen: () => this.#transport === transport && this.#callbacks.onOpen(),
      onMessage: (text) => this.#transport === transport && this.#onMessage(text),
      onClose: (event) => this.#transport === transport && this.#onClose(event),
    });
    this.#transport = transport;
  }

  #url(useEventStream, token) {
    const url = this.#callbacks.begin(useEventStream);
    if (!useEventStream) {
      url.protocol = url.protocol.replace("http", "ws");
      if (token) url.searchParams.set("token", token);
    }
    return url;
  }

  // A network path can fail without a close event.
  #restartIdleTimer(milliseconds) {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => this.#onClose({ reason: "timeout" }), milliseconds);
  }

  #onMessage(text) {
    const message = JSON.parse(text);
    // Other messages are no answer: they may have waited in this device's memory while it slept.
    if (message.type === "pong") this.#isAsking = false;
    this.#restartIdleTimer(this.#isAsking ? ANSWER_TIMEOUT_MS : this.#idleTimeout);
    if (message.type === "ping") this.#transport.send('{"type":"pong"}');
    if (message.type === "ping" || message.type === "pong") return;
    if (this.#liveSince === null) {
      this.#liveSince = Date.now();
      this.#unopened = this.#refusals = 0;
      this.#setState({ name: "live", attempt: 0 });
    }
    this.#callbacks.onMessage(message);
  }

  #onClose({ code, status, wait = 0, reason }) {
    const liveTime = this.#liveSince === null ? 0 : Date.now() - this.#liveSince;
    if (this.#liveSince === null) this.#unopened += 1;
    const wasAsking = this.#isAsking;
    this.#closeTransport();
    if (code === CLOSE_REPLACED) {
      this.#finish({ name: "replaced", attempt: 0, reason: "this client id connected again" });
      return;
    }
    if (REFUSED_STATUSES.includes(status)) {
      this.#refusals += 1;
      const mayHelp = typeof this.#token === "function" && TOKEN_STATUSES.includes(status);
      if (!mayHelp || this.#refusals > 1) {
        this.#finish({ name: "refused", attempt: this.#attempt + 1, reason });
        return;
      }
    }
    const wasStable = liveTime > STABLE_AFTER_MS;
    this.#attempt = wasStable ? 1 : this.#attempt + 1;
    const maxDelay = Math.min(MAX_DELAY_MS, INITIAL_DELAY_MS * 2 ** (this.#attempt - 1));
    const isPrompt = wasAsking || (code === CLOSE_EXPIRED && wasStable);
    const delay = isPrompt ? 0 : Math.max(wait, maxDelay * (0.5 + Math.random() / 2));
    this.#retryTimer = setTimeout(() => isHidden() || this.#open(), delay); // else `#wake` opens
    this.#setState({ name: "reconnecting", attempt: this.#attempt, reason: reason ?? `closed (${code})` });
  }

  #closeTransport() {
    clearTimeout(this.#idleTimer);
    const transport = this.#transport;
    this.#transport = this.#liveSince = null;
    this.#isAsking = false;
    transport?.close();
    if (transport) this.#callbacks.onLost();
  }

  #finish(state) {
    this.close();
    this.#setState(state);
  }

  // The connection may be dead without a close event: asks now, and does not wait for the next retry.
  #wake() {
    this.#attempt = 0;
    if (this.#isAsking) return;
    if (this.#liveSince !== null && this.#transport.send('{"type":"ping"}')) {
      this.#isAsking = true;
      this.#restartIdleTimer(ANSWER_TIMEOUT_MS);
      return;
    }
    if (this.#liveSince !== null) {
      this.#unopened = WEBSOCKET_ATTEMPTS; // an event stream is asked by a new request
      dropDeadConnections(this.#base);
    }
    const isFresh = this.#liveSince === null && Date.now() - this.#openedAt < ANSWER_TIMEOUT_MS;
    const timeout = this.#isNew ? OPEN_TIMEOUT_MS : ANSWER_TIMEOUT_MS;
    if (this.#transport !== null && isFresh) {
      this.#restartIdleTimer(timeout); // `pageshow` also follows when the page has loaded
    } else {
      this.#closeTransport();
      this.#open(timeout);
    }
  }

  #listen() {
    const { signal } = this.#abortController;
    onWake(() => this.#wake(), signal);
    // No close event may follow.
    globalThis.addEventListener?.("offline", () => this.#transport && this.#onClose({ reason: "offline" }), { signal });
  }
}
