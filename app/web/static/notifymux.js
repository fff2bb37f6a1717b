// The notifymux client for browsers: receives the events of one match and reconnects automatically.
//
//   import { connect } from "./static/notifymux.js";
//
//   const connection = connect({ match: 7 });
//   connection.on("initial-load", (message) => {}); // a snapshot, or "recovered": no event was missed
//   connection.on("resync", (message) => {}); // a gap: replace the state with this snapshot
//   connection.on("match-update", (message) => {});
//   connection.onState((state) => {});
//   connection.close();
//
// docs/protocol.md describes the messages. After a connection is lost, the client resumes from the last id it received,
// with exponential backoff and jitter. If WebSockets fail to open, it uses server-sent events instead. While the page is
// hidden, it does not reconnect. When the device or the page wakes up, it asks whether the connection is still alive.

const INITIAL_DELAY_MS = 500;
const MAX_DELAY_MS = 15_000;
const STABLE_AFTER_MS = 5_000; // a connection that was live for longer resets the backoff
const OPEN_TIMEOUT_MS = 15_000; // until the first message
const IDLE_TIMEOUT_PINGS = 2.5; // ping intervals without a message
const ANSWER_TIMEOUT_MS = 3_000; // after waking up
const IDLE_CONNECTIONS = 5; // browsers keep up to six for a host over HTTP/1.1; the event stream takes one
const WEBSOCKET_ATTEMPTS = 2; // failed attempts before every second attempt uses server-sent events

const CLOSE_EXPIRED = 3000;
const CLOSE_REPLACED = 3510;
const REFUSED_STATUSES = [401, 403, 404];
const TOKEN_STATUSES = [401, 403]; // another token may help

const CLOCK_INTERVAL_MS = 1_000;
const CLOCK_JUMP_MS = 5_000; // from one look at the clock to the next: the device slept

/**
 * @typedef {"connecting" | "live" | "reconnecting" | "refused" | "replaced" | "closed"} StateName
 * The last three are final: the server refused the client, the same client id connected again, `close()` was called.
 *
 * @typedef {object} State
 * @property {StateName} name
 * @property {number} attempt - consecutive failures
 * @property {string} [reason] - an explanation for people
 *
 * @typedef {object} Options
 * @property {string | number} match - the id of the match
 * @property {string | URL} [base] - the URL of notifymux; by default where this file was loaded from
 * @property {string} [clientId] - identifies this connection within its match; random by default
 * @property {string | (() => string | Promise<string>)} [token] - a function is called before every attempt, and once
 * more before a refusal is final
 * @property {string} [lastEventId] - resume after this id instead of starting with a snapshot
 * @property {number} [pingInterval] - the server's PING_INTERVAL in seconds; 30 by default
 * @property {typeof WebSocket} [WebSocket] - the class to use, for Node before version 22
 */

/**
 * Connects to a match.
 *
 * @param {Options} options
 * @returns {Connection}
 * @throws {TypeError} `match` is missing, or `base` is not a URL
 */
export function connect(options) {
  return new Connection(options);
}

class Connection {
  #match;
  #base;
  #clientId;
  #token;
  #socketClass;
  #idleTimeout; // milliseconds
  #handlers = new EventTarget(); // a handler that throws does not stop the others
  #state = { name: "connecting", attempt: 0 };
  #lastEventId;
  #transport = null; // open or opening; null while waiting for the next attempt
  #liveSince = null; // null until the first message
  #openedAt; // when the last attempt began
  #isAsking = false; // since the page woke up, until an answer proves that the connection is alive
  #attempt = 0; // consecutive failures
  #refusals = 0; // consecutive ones
  #unopened = 0; // consecutive connections that delivered no message
  #idleTimer;
  #retryTimer = null;
  #abortController = new AbortController(); // removes the listeners

  constructor({ match, base = new URL("..", import.meta.url), clientId = randomId(), ...rest }) {
    if (match === undefined || match === null || match === "") throw new TypeError("connect() needs a match");
    this.#match = encodeURIComponent(match);
    this.#base = new URL(base, globalThis.document?.baseURI);
    this.#clientId = encodeURIComponent(clientId);
    this.#token = rest.token;
    this.#lastEventId = rest.lastEventId ?? null;
    this.#idleTimeout = (rest.pingInterval ?? 30) * 1000 * IDLE_TIMEOUT_PINGS;
    this.#socketClass = rest.WebSocket ?? globalThis.WebSocket;
    this.#listen();
    this.#open();
  }

  /** The id from which another connection can resume; null if the last message has none. */
  get lastEventId() {
    return this.#lastEventId;
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /**
   * Registers a handler for the messages of one type, or of every type with `"*"`. Pings are answered, not passed on.
   * Each message is passed once and in order.
   *
   * @param {string} type
   * @param {(message: object) => void} handler
   * @returns {() => void} removes the handler
   */
  on(type, handler) {
    return this.#addHandler(`message ${type}`, handler);
  }

  /**
   * Registers a handler for the state. It is called at once and at every change.
   *
   * @param {(state: State) => void} handler
   * @returns {() => void} removes the handler
   */
  onState(handler) {
    handler(this.#state);
    return this.#addHandler("state", handler);
  }

  /** Closes the connection permanently. */
  close() {
    this.#finish({ name: "closed", attempt: 0 });
  }

  #addHandler(type, handler) {
    const listener = ({ detail }) => handler(detail);
    this.#handlers.addEventListener(type, listener);
    return () => this.#handlers.removeEventListener(type, listener);
  }

  #dispatch(type, detail) {
    this.#handlers.dispatchEvent(Object.assign(new Event(type), { detail }));
  }

  #setState(state) {
    this.#state = state;
    this.#dispatch("state", state);
  }

  async #open(timeout = OPEN_TIMEOUT_MS) {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    const placeholder = { close() {} }; // identifies this attempt while the token is fetched
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
      onMessage: (text) => this.#transport === transport && this.#onMessage(text),
      onClose: (event) => this.#transport === transport && this.#onClose(event),
    });
    this.#transport = transport;
  }

  #url(useEventStream, token) {
    const path = useEventStream ? `${this.#match}/events` : `ws/id/${this.#match}/${this.#clientId}/`;
    const url = new URL(`api/matches/${path}`, this.#base);
    if (this.#lastEventId) url.searchParams.set("last_event_id", this.#lastEventId);
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
    const isSnapshot = message.type === "initial-load" || message.type === "resync";
    if (!isSnapshot && !isAfter(message.id, this.#lastEventId)) return;
    if (isSnapshot || message.id) this.#lastEventId = message.id;
    this.#dispatch(`message ${message.type}`, message);
    this.#dispatch("message *", message);
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
  }

  #finish(state) {
    this.#abortController.abort();
    clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    this.#closeTransport();
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
    const timeout = this.#state.name === "connecting" ? OPEN_TIMEOUT_MS : ANSWER_TIMEOUT_MS;
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

/**
 * Calls `wake` when the page becomes visible or returns from the back-forward cache, when the network returns, and when
 * the device has slept. Also for the status page.
 *
 * @param {() => void} wake
 * @param {AbortSignal} signal - ends it
 */
export function onWake(wake, signal) {
  const wakeIfVisible = () => isHidden() || wake();
  globalThis.addEventListener?.("online", wakeIfVisible, { signal });
  globalThis.addEventListener?.("pageshow", wakeIfVisible, { signal });
  globalThis.document?.addEventListener("visibilitychange", wakeIfVisible, { signal });
  let last = Date.now();
  const timer = setInterval(() => {
    const elapsed = Date.now() - last;
    last += elapsed;
    if (elapsed > CLOCK_JUMP_MS) wakeIfVisible();
  }, CLOCK_INTERVAL_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

/**
 * Has the browser drop its idle connections to notifymux if they are dead: it would send the next requests over them.
 * It closes a connection over HTTP/1.1 whose request is aborted. Also for the status page.
 *
 * @param {string | URL} base - the URL of notifymux
 */
export function dropDeadConnections(base) {
  for (let request = 0; request < IDLE_CONNECTIONS; request += 1) {
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    fetch(new URL("healthz", base), { mode: "no-cors", cache: "no-store", signal }).catch(() => {});
  }
}

/** Whether the page is hidden. Retries wait until it is visible. */
export function isHidden() {
  return globalThis.document?.hidden ?? false;
}

// ---- transports: call `onMessage` with the text of every message, and `onClose` once, unless `close` was called.
// `send` returns whether something can be sent.

function openWebSocket(url, { socketClass, onMessage, onClose }) {
  const socket = new socketClass(url);
  socket.onmessage = ({ data }) => onMessage(data);
  socket.onclose = ({ code }) => onClose({ code });
  socket.onerror = () => {}; // a close event follows
  return {
    send(text) {
      socket.send(text);
      return true;
    },
    close() {
      socket.onmessage = socket.onclose = null;
      socket.close();
    },
  };
}

// Uses fetch instead of EventSource: fetch gives the status of a refused request and sends the token in a header.
function openEventStream(url, { token, onMessage, onClose }) {
  const abortController = new AbortController();
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  read().then(onClose);
  return { send: () => false, close: () => abortController.abort() };

  async function read() {
    const options = { headers, cache: "no-store", signal: abortController.signal };
    const response = await fetch(url, options).catch(() => null);
    if (!response) return { reason: "no connection" };
    if (!response.ok) return refusal(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { value = "", done } = await reader.read().catch(() => ({ done: true }));
      if (done) return { reason: "the stream ended" };
      const lines = (buffer + value).split("\n");
      buffer = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) onMessage(line.slice(6));
    }
  }
}

/**
 * Returns why a request failed. `status` is only there if notifymux itself responded: what a proxy says passes with its
 * deploy. Also for the status page.
 *
 * @param {Response} response
 * @returns {Promise<{ status?: number, wait: number, reason: string }>}
 */
export async function refusal(response) {
  const body = await response.json().catch(() => null);
  const isOwn = body?.server === "notifymux";
  const wait = 1000 * (Number(response.headers.get("retry-after")) || 0);
  const reason = isOwn ? String(body.error) : `HTTP ${response.status}`;
  return { status: isOwn ? response.status : undefined, wait, reason };
}

// ---- ids

function isAfter(id, last) {
  if (!id || !last) return true;
  const [epoch, sequence] = id.split("-").map(Number);
  const [lastEpoch, lastSequence] = last.split("-").map(Number);
  return epoch === lastEpoch ? sequence > lastSequence : epoch > lastEpoch;
}

function randomId() {
  if (crypto.randomUUID) return crypto.randomUUID(); // only in secure contexts
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
