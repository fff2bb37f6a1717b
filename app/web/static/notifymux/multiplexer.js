// Many matches over one connection. A match resumes from its own position, the id of the last message that was passed
// on; where somebody waits for a start of its own, from none, so that a snapshot comes.

import { isAfter } from "./event_ids.js";
import { matchKey, matchText, matchValue } from "./match_ids.js";
import { ReconnectingTransport } from "./reconnecting_transport.js";

const MAX_MATCHES = 128; // the server's bound for a connection
const OF_A_REQUEST = ["too-fast", "too-many", "malformed"]; // refusals that end nothing

/**
 * @typedef {object} Subscription
 * @property {string | number} match
 * @property {string | null} position - null: a snapshot is needed, or the match's last start had no id
 * @property {boolean} isDue - neither an initial-load nor a refusal has answered the last request yet
 * @property {boolean} isBehind - that request asked for a later position: another one follows its answer
 * @property {boolean} isStarted - an initial-load has come over this transport
 *
 * @typedef {object} Callbacks
 * @property {(message: object) => void} onMessage
 * @property {(match?: string | number) => void} onLost - what follows of the match, or of each match, begins with another
 * initial-load
 * @property {(state: State) => void} onState
 */

export class Multiplexer {
  #options;
  #callbacks;
  #subscriptions = new Map(); // by `matchKey`
  #transport = null; // null while there is no match
  #isOpen = false; // a WebSocket that takes requests
  #fences = new Map(); // by `matchKey`: how many answers to `unsubscribe` are due, before which all is of an earlier time
  #isStream = false; // an event stream, whose request named its matches
  #isOutdated = false; // the matches of the event stream are others now
  #isSettling = false;
  #isClosed = false;

  /**
   * @param {object} options - those of `connect`, complete
   * @param {Callbacks} callbacks
   */
  constructor(options, callbacks) {
    this.#options = options;
    this.#callbacks = callbacks;
  }

  /**
   * Has the match's events come: from an initial-load on that is either a snapshot or recovered from an id that is not
   * after `after`. Whoever heard the match before hears it on without a gap, or a snapshot.
   *
   * @param {string | number} match
   * @param {string | null} after - null: a snapshot is needed
   */
  subscribe(match, after) {
    const known = this.#subscriptions.get(matchKey(match));
    if (!known) {
      this.#begin(match, after);
    } else if (known.position === null && (known.isDue || !known.isStarted)) {
      // the snapshot that comes is for all
    } else if (after === null || isAfter(known.position, after)) {
      known.position = after;
      if (known.isDue && this.#isOpen) known.isBehind = true;
      else this.#request(known);
    } else if (!known.isDue && known.isStarted) {
      const id = known.position;
      this.#callbacks.onMessage({ type: "initial-load", recovered: true, id, match_id: matchValue(match), data: null });
    }
  }

  /** Ends a match. */
  unsubscribe(match) {
    if (!this.#subscriptions.has(matchKey(match))) return;
    this.#isOutdated = true;
    this.#remove(match);
  }

  /** Gives the open connection another token. One that opens later asks for its own. */
  renew(token) {
    if (this.#isOpen) this.#send({ type: "token", token });
  }

  /** Closes the connection permanently. */
  close() {
    this.#isClosed = true;
    this.#transport?.close();
  }

  #begin(match, after) {
    if (this.#subscriptions.size >= MAX_MATCHES) {
      const reason = `a connection has ${MAX_MATCHES} matches at most`;
      const refused = { type: "refused", match_id: matchValue(match), code: "too-many", reason };
      queueMicrotask(() => this.#callbacks.onMessage(refused)); // when whoever asks has its handlers
      return;
    }
    const subscription = { match, position: after, isDue: false, isBehind: false, isStarted: false };
    this.#subscriptions.set(matchKey(match), subscription);
    this.#request(subscription);
  }

  #request(subscription) {
    const { match, position } = subscription;
    if (this.#isOpen) {
      subscription.isDue = true;
      this.#send({ type: "subscribe", match_id: matchValue(match), ...(position && { last_event_id: position }) });
    }
    this.#isOutdated = true;
    this.#settleSoon();
  }

  #remove(match) {
    const key = matchKey(match);
    this.#subscriptions.delete(key);
    if (this.#isOpen) {
      this.#fences.set(key, (this.#fences.get(key) ?? 0) + 1);
      this.#send({ type: "unsubscribe", match_id: matchValue(match) });
    }
    this.#settleSoon();
  }

  #send(message) {
    this.#transport.send(JSON.stringify(message));
  }

  // All changes that a page makes at once are one request of an event stream.
  #settleSoon() {
    if (this.#isSettling) return;
    this.#isSettling = true;
    queueMicrotask(() => this.#settle());
  }

  #settle() {
    this.#isSettling = false;
    if (this.#isClosed) return;
    if (this.#subscriptions.size === 0) {
      const transport = this.#transport;
      this.#transport = null;
      transport?.close();
      this.#callbacks.onState({ name: "connecting", attempt: 0 });
    } else if (this.#transport === null) {
      this.#transport = new ReconnectingTransport(this.#options, {
        begin: (useEventStream) => this.#onBegin(useEventStream),
        onOpen: () => this.#onOpen(),
        onMessage: (message) => this.#onMessage(message),
        onLost: () => this.#onLost(),
        onState: (state) => this.#callbacks.onState(state),
      });
    } else if (this.#isStream && this.#isOutdated) {
      this.#transport.restart();
    }
  }

  #onBegin(useEventStream) {
    const { base, clientId } = this.#options;
    if (!useEventStream) return new URL(`api/matches/ws/${encodeURIComponent(clientId)}/`, base);
    this.#isStream = true;
    this.#isOutdated = false;
    const url = new URL("api/matches/events", base);
    for (const subscription of this.#subscriptions.values()) {
      subscription.isDue = true;
      url.searchParams.append("match", matchText(subscription.match));
      if (subscription.position) url.searchParams.append("after", subscription.position);
    }
    return url;
  }

  #onOpen() {
    this.#isOpen = true;
    for (const subscription of this.#subscriptions.values()) this.#request(subscription);
  }

  #onLost() {
    this.#isOpen = this.#isStream = false;
    this.#fences.clear();
    for (const subscription of this.#subscriptions.values()) {
      subscription.isDue = subscription.isBehind = subscription.isStarted = false;
    }
    this.#callbacks.onLost();
  }

  #onMessage(message) {
    const key = matchKey(message.match_id);
    if (this.#fences.has(key)) {
      if (message.type === "unsubscribed") this.#passFence(key);
      return;
    }
    const subscription = this.#subscriptions.get(key);
    if (subscription && (message.type === "initial-load" || message.type === "refused")) {
      this.#noteAnswer(subscription, message);
    }
    this.#callbacks.onMessage(message);
    if (subscription) this.#notePosition(subscription, message);
  }

  #passFence(key) {
    const due = this.#fences.get(key) - 1;
    if (due === 0) this.#fences.delete(key);
    else this.#fences.set(key, due);
  }

  // Before the message is passed on, since a handler may ask again.
  #noteAnswer(subscription, { type, code }) {
    const wasDue = subscription.isDue;
    subscription.isDue = false;
    if (type === "refused" && endsSubscription(code, subscription.isStarted)) {
      this.#remove(subscription.match);
      return;
    }
    if (type === "initial-load") {
      if (!wasDue) this.#callbacks.onLost(subscription.match); // with another token, the server shows something else
      subscription.isStarted = true;
    }
    if (subscription.isBehind) {
      subscription.isBehind = false;
      this.#request(subscription);
    }
  }

  // After the message was passed on. While an answer is due, the position is the one that was asked for.
  #notePosition(subscription, { type, id, recovered }) {
    if (subscription.isDue || recovered) return;
    const isSnapshot = type === "initial-load" || type === "resync";
    if (isSnapshot || (id && isAfter(id, subscription.position))) subscription.position = id;
  }
}

/** Whether a refusal ends a match that has started, or else only a request to start it over. */
export function endsSubscription(code, isStarted) {
  return !isStarted || !OF_A_REQUEST.includes(code);
}
