// A connection with several matches, over a socket that it shares with the others of its page.

import { isAfter } from "./event_ids.js";
import { checkMatch, matchKey } from "./match_ids.js";
import { endsSubscription } from "./multiplexer.js";
import { Observable } from "./observable.js";

/**
 * What comes over the shared socket is not for this connection alone: another one may have the match start over. Each
 * match is in one of two states. Heard on: every event after `position` comes, and those up to it are repetitions.
 * Not heard on, at first and whenever the socket was lost: what comes may lie behind a gap, until an initial-load
 * is a snapshot, or recovered from an id that is not after `position`.
 *
 * @typedef {object} Heard
 * @property {string | number} match
 * @property {string | null} position
 * @property {boolean} isHeardOn
 */

export class MatchesConnection extends Observable {
  #socket;
  #heard = new Map(); // by `matchKey`

  constructor(socket, matches) {
    super();
    this.#socket = socket;
    socket.join(this);
    for (const match of matches) this.add(match);
  }

  /** The matches, in the order in which they were added. */
  get matches() {
    return Array.from(this.#heard.values(), ({ match }) => match);
  }

  /** Adds a match: its initial-load with a snapshot follows, or `refused`. Nothing happens if it is there. */
  add(match) {
    checkMatch(match);
    if (this.has(match) || !this.#socket) return;
    this.#heard.set(matchKey(match), { match, position: null, isHeardOn: false });
    this.#socket.subscribe(match);
  }

  /** Removes a match: none of its messages comes any longer. */
  remove(match) {
    if (this.#heard.delete(matchKey(match))) this.#socket.unsubscribe(match);
  }

  /**
   * Has the server go on with a new token of the function `token`, without a new connection: `renewed` follows, or
   * `refused` with the code `token`. Without it, the page reconnects when its token expires.
   */
  async renew() {
    await this.#socket?.renew();
  }

  /** Closes the connection permanently. */
  close() {
    this.#finish({ name: "closed", attempt: 0 });
  }

  // ---- for the shared socket

  has(match) {
    return this.#heard.has(matchKey(match));
  }

  /** The matches and their positions; null where a snapshot is needed. */
  get positions() {
    return Array.from(this.#heard.values(), ({ match, position }) => [match, position]);
  }

  /** What follows of a match, or of all, may lie behind a gap. */
  lose(match) {
    for (const [key, heard] of this.#heard) if (match === undefined || key === matchKey(match)) heard.isHeardOn = false;
  }

  setState(state) {
    if (state.name === "refused" || state.name === "replaced") this.#finish(state);
    else this._setState(state);
  }

  receive(message) {
    if (message.match_id === undefined) {
      this._dispatchMessage(message);
      return;
    }
    const heard = this.#heard.get(matchKey(message.match_id));
    if (!heard) return;
    if (message.type === "initial-load") this.#start(heard, message);
    else if (message.type === "refused") this.#refuse(heard, message);
    else if (heard.isHeardOn) this.#continue(heard, message);
  }

  #start(heard, message) {
    const { id, recovered } = message;
    const isKnown = heard.position !== null && id && !isAfter(id, heard.position);
    // Another one's start. What the match has missed on the socket meanwhile follows, after later events of others.
    const isOthers = heard.isHeardOn && (recovered || isKnown);
    if (recovered && !isKnown && !isOthers) return;
    heard.isHeardOn = true;
    if (recovered || isOthers) {
      this._dispatchMessage({ ...message, recovered: true, id: heard.position, data: null });
    } else {
      this._dispatchMessage(message);
      heard.position = id;
    }
  }

  #continue(heard, message) {
    const { type, id } = message;
    if (type !== "resync" && !isAfter(id, heard.position)) return;
    this._dispatchMessage(message);
    if (type === "resync" || id) heard.position = id;
  }

  #refuse(heard, message) {
    if (!endsSubscription(message.code, heard.isHeardOn)) return;
    this.#heard.delete(matchKey(heard.match));
    this.#socket.unsubscribe(heard.match);
    this._dispatchMessage(message);
  }

  #finish(state) {
    const socket = this.#socket;
    this.#socket = null;
    socket?.leave(this);
    this.#heard.clear();
    this._setState(state);
  }
}
