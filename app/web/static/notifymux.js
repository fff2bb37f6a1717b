// notifymux in a page: one match's events, over a connection that comes back by itself.
//
//   import { connect } from "./static/notifymux.js";
//
//   const connection = connect({ match: 7 });
//   connection.on("initial-load", (message) => {}); // a snapshot, or "recovered": nothing was missed
//   connection.on("resync", (message) => {}); // start again from this snapshot
//   connection.on("match-update", (message) => {});
//   connection.onState((state) => {});
//   connection.close();
//
// The messages are those of docs/protocol.md. After a loss it resumes from the last id that it heard, with a growing,
// random delay; where a WebSocket doesn't get through, it reads the event stream instead.

const FIRST_DELAY = 500; // milliseconds, as all that follow
const LONGEST_DELAY = 15_000;
const STABLE_AFTER = 5_000; // what was live for so long starts over with the first delay
const OPEN_WITHIN = 15_000; // up to the first message
const PINGS_MISSED = 2.5;
const SOCKET_TRIES = 2; // that don't open, before the event stream is tried in turn

const EXPIRED = 3000;
const REPLACED = 3510;
const REFUSED = [401, 403, 404]; // HTTP

/**
 * @typedef {"connecting" | "live" | "reconnecting" | "refused" | "replaced" | "closed"} StateName
 * The last three are final: refused by the server, taken over by the same client id elsewhere, closed here.
 *
 * @typedef {object} State
 * @property {StateName} name
 * @property {number} attempt - failures in a row
 * @property {string} [reason] - why, for people
 *
 * @typedef {object} Options
 * @property {string | number} match - whose events
 * @property {string | URL} [base] - where notifymux is; where this file came from by default
 * @property {string} [clientId] - a name for this socket in its match; a random one by default
 * @property {string | (() => string | Promise<string>)} [token] - a function is asked at every attempt
 * @property {string} [lastEventId] - go on after this id, rather than from a snapshot
 * @property {number} [pingInterval] - the server's PING_INTERVAL in seconds; 30 by default
 * @property {typeof WebSocket} [WebSocket] - another one, for Node before 22
 */

/**
 * Connects to a match.
 *
 * @param {Options} options
 * @returns {Connection}
 * @throws {TypeError} `match` is missing, or `base` is no URL
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
  #silence; // milliseconds until a connection is taken for dead
  #handlers = new EventTarget(); // one that throws doesn't keep the others from hearing
  #state = { name: "connecting", attempt: 0 };
  #last;
  #wire = null; // what is open, or opening
  #liveSince = null;
  #attempt = 0; // failures in a row
  #unopened = 0; // sockets in a row that brought nothing
  #deadline; // timer: a path can die without a close
  #retry = null; // timer: until the next attempt
  #ears = new AbortController();

  constructor({ match, base = new URL("..", import.meta.url), clientId = randomId(), ...rest }) {
    if (match === undefined || match === null || match === "") throw new TypeError("connect() needs a match");
    this.#match = encodeURIComponent(match);
    this.#base = new URL(base, globalThis.document?.baseURI);
    this.#clientId = encodeURIComponent(clientId);
    this.#token = rest.token;
    this.#last = rest.lastEventId ?? null;
    this.#silence = (rest.pingInterval ?? 30) * 1000 * PINGS_MISSED;
    this.#socketClass = rest.WebSocket ?? globalThis.WebSocket;
    this.#watchThePage();
    this.#open();
  }

  /** The id of the last message: where this match could be taken up again; null if it has none. */
  get lastEventId() {
    return this.#last;
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /**
   * Hears the messages of one type, or of all with `"*"` (pings excepted), in order, each once.
   *
   * @param {string} type
   * @param {(message: object) => void} handler
   * @returns {() => void} ends it
   */
  on(type, handler) {
    return this.#listen(`message ${type}`, handler);
  }

  /**
   * Hears the state, at once and whenever it changes.
   *
   * @param {(state: State) => void} handler
   * @returns {() => void} ends it
   */
  onState(handler) {
    handler(this.#state);
    return this.#listen("state", handler);
  }

  /** Leaves for good. */
  close() {
    this.#finish({ name: "closed", attempt: 0 });
  }

  #listen(type, handler) {
    const listener = ({ detail }) => handler(detail);
    this.#handlers.addEventListener(type, listener);
    return () => this.#handlers.removeEventListener(type, listener);
  }

  #tell(type, detail) {
    this.#handlers.dispatchEvent(Object.assign(new Event(type), { detail }));
  }

  #become(state) {
    this.#state = state;
    this.#tell("state", state);
  }

  async #open() {
    clearTimeout(this.#retry);
    this.#retry = null;
    const wire = { close() {} }; // stands for this attempt while the token is fetched
    this.#wire = wire;
    this.#expectWithin(OPEN_WITHIN);
    let token;
    try {
      token = typeof this.#token === "function" ? await this.#token() : this.#token;
    } catch (error) {
      if (this.#wire === wire) this.#lost({ reason: `no token: ${error?.message ?? error}` });
      return;
    }
    if (this.#wire === wire) this.#dial(token);
  }

  #dial(token) {
    // In turn, for who can't open a socket may as well have no network.
    const asStream = !this.#socketClass || (this.#unopened >= SOCKET_TRIES && this.#unopened % 2 === 0);
    const open = asStream ? openStream : openSocket;
    const wire = open(this.#url(asStream, token), {
      token,
      socketClass: this.#socketClass,
      heard: (text) => this.#wire === wire && this.#heard(text),
      ended: (end) => this.#wire === wire && this.#lost(end),
    });
    this.#wire = wire;
  }

  #url(asStream, token) {
    const path = asStream ? `${this.#match}/events` : `ws/id/${this.#match}/${this.#clientId}/`;
    const url = new URL(`api/matches/${path}`, this.#base);
    if (this.#last) url.searchParams.set("last_event_id", this.#last);
    if (!asStream) {
      url.protocol = url.protocol.replace("http", "ws");
      if (token) url.searchParams.set("token", token);
    }
    return url;
  }

  #expectWithin(milliseconds) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#lost({ reason: "silence" }), milliseconds);
  }

  #heard(text) {
    this.#expectWithin(this.#silence);
    const message = JSON.parse(text);
    if (message.type === "ping") {
      this.#wire.pong();
      return;
    }
    if (this.#liveSince === null) {
      this.#liveSince = Date.now();
      this.#unopened = 0;
      this.#become({ name: "live", attempt: 0 });
    }
    const starts = message.type === "initial-load" || message.type === "resync";
    if (!starts && !isAfter(message.id, this.#last)) return;
    if (starts || message.id) this.#last = message.id;
    this.#tell(`message ${message.type}`, message);
    this.#tell("message *", message);
  }

  #lost({ code, status, wait = 0, reason }) {
    const lived = this.#liveSince === null ? 0 : Date.now() - this.#liveSince;
    if (this.#liveSince === null) this.#unopened += 1;
    this.#drop();
    if (code === REPLACED) {
      this.#finish({ name: "replaced", attempt: 0, reason: "this client id connected again" });
      return;
    }
    if (REFUSED.includes(status)) {
      this.#finish({ name: "refused", attempt: this.#attempt + 1, reason });
      return;
    }
    this.#attempt = lived > STABLE_AFTER ? 1 : this.#attempt + 1;
    const ceiling = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** (this.#attempt - 1));
    const delay = code === EXPIRED && lived > STABLE_AFTER ? 0 : Math.max(wait, ceiling * (0.5 + Math.random() / 2));
    this.#retry = setTimeout(() => this.#open(), delay);
    this.#become({ name: "reconnecting", attempt: this.#attempt, reason: reason ?? `closed (${code})` });
  }

  #drop() {
    clearTimeout(this.#deadline);
    const wire = this.#wire;
    this.#wire = this.#liveSince = null;
    wire?.close();
  }

  #finish(state) {
    this.#ears.abort();
    clearTimeout(this.#retry);
    this.#retry = null;
    this.#drop();
    this.#become(state);
  }

  // Somebody looks again, or the network is back: no reason to sit out the delay. A network that went took the path
  // with it, though no close may ever come.
  #watchThePage() {
    const { signal } = this.#ears;
    const now = () => {
      if (this.#liveSince !== null) return;
      this.#drop();
      this.#open();
    };
    globalThis.addEventListener?.("online", now, { signal });
    globalThis.addEventListener?.("pageshow", ({ persisted }) => persisted && now(), { signal });
    globalThis.addEventListener?.("offline", () => this.#wire && this.#lost({ reason: "offline" }), { signal });
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden || now(), { signal });
  }
}

// ---- one attempt: `heard` gets every message's text, `ended` is called once, unless it was closed from here

function openSocket(url, { socketClass, heard, ended }) {
  const socket = new socketClass(url);
  socket.onmessage = ({ data }) => heard(data);
  socket.onclose = ({ code }) => ended({ code });
  socket.onerror = () => {}; // a close follows
  return {
    pong: () => socket.send('{"type":"pong"}'),
    close() {
      socket.onmessage = socket.onclose = null;
      socket.close();
    },
  };
}

// fetch rather than EventSource: it says why it was refused, and its token stays out of the URL.
function openStream(url, { token, heard, ended }) {
  const abort = new AbortController();
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  read().then(ended);
  return { pong() {}, close: () => abort.abort() };

  async function read() {
    const response = await fetch(url, { headers, cache: "no-store", signal: abort.signal }).catch(() => null);
    if (!response) return { reason: "no connection" };
    if (!response.ok) return refusal(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value = "", done } = await reader.read().catch(() => ({ done: true }));
      if (done) return { reason: "the stream ended" };
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) heard(line.slice(6));
    }
  }
}

async function refusal(response) {
  const answer = await response.json().catch(() => ({}));
  const wait = 1000 * (Number(response.headers.get("retry-after")) || 0);
  return { status: response.status, wait, reason: answer.error ?? `HTTP ${response.status}` };
}

// ---- small things

function isAfter(id, last) {
  if (!id || !last) return true;
  const [epoch, sequence] = id.split("-").map(Number);
  const [lastEpoch, lastSequence] = last.split("-").map(Number);
  return epoch === lastEpoch ? sequence > lastSequence : epoch > lastEpoch;
}

function randomId() {
  if (crypto.randomUUID) return crypto.randomUUID(); // only where the page is secure or local
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
