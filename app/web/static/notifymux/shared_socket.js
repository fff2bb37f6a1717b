// One socket for all connections of a page that have the same options.

import { isAfter } from "./event_ids.js";
import { matchKey } from "./match_ids.js";
import { Multiplexer } from "./multiplexer.js";
import { randomId } from "./random_id.js";
import { Tabs, canShareTabs } from "./tabs.js";

const COMPARED = ["clientId", "token", "pingInterval", "WebSocket", "shareTabs"]; // and `base`

const sockets = new Set();

/** Returns the page's socket for the options. */
export function sharedSocket(options) {
  for (const socket of sockets) if (socket.isFor(options)) return socket;
  return new SharedSocket(options);
}

class SharedSocket {
  #options;
  #connections = new Set();
  #carrier; // what carries the matches: a connection of this page's own, or of all tabs
  #state = { name: "connecting", attempt: 0 };

  constructor(options) {
    this.#options = options;
    const Carrier = options.shareTabs && canShareTabs() ? Tabs : Multiplexer;
    this.#carrier = new Carrier(
      { ...options, clientId: options.clientId ?? randomId() },
      {
        onMessage: (message) => this.#forEach((connection) => connection.receive(message)),
        onLost: (match) => this.#forEach((connection) => connection.lose(match)),
        onState: (state) => this.#onState(state),
        positions: () => this.#positions(),
      },
    );
    sockets.add(this);
  }

  isFor(options) {
    const isSame = COMPARED.every((name) => options[name] === this.#options[name]);
    return isSame && options.base.href === this.#options.base.href;
  }

  join(connection) {
    this.#connections.add(connection);
    connection.setState(this.#state);
  }

  /** A connection has closed, with all its matches. */
  leave(connection) {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#close();
    else for (const [match] of connection.positions) this.unsubscribe(match);
  }

  /** A connection has a match that it did not have. */
  subscribe(match) {
    this.#carrier.subscribe(match, null);
  }

  /** A connection has a match no longer. */
  unsubscribe(match) {
    for (const connection of this.#connections) if (connection.has(match)) return;
    this.#carrier.unsubscribe(match);
  }

  async renew() {
    const { token } = this.#options;
    this.#carrier.renew(typeof token === "function" ? await token() : token);
  }

  #onState(state) {
    const { name, attempt } = this.#state;
    if (state.name === name && state.attempt === attempt) return;
    this.#state = state;
    if (state.name === "refused" || state.name === "replaced") this.#close();
    this.#forEach((connection) => connection.setState(state));
  }

  #close() {
    sockets.delete(this);
    this.#carrier.close();
  }

  // A handler may close connections, and make others.
  #forEach(call) {
    for (const connection of [...this.#connections]) if (this.#connections.has(connection)) call(connection);
  }

  // Of each match, the lowest position, from which all connections miss nothing; null if one waits for a snapshot.
  #positions() {
    const lowest = new Map();
    for (const connection of this.#connections) {
      for (const [match, position] of connection.positions) {
        const known = lowest.get(matchKey(match));
        const isLower = !known || position === null || (known[1] !== null && isAfter(known[1], position));
        if (isLower) lowest.set(matchKey(match), [match, position]);
      }
    }
    return [...lowest.values()];
  }
}
