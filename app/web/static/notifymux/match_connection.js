// The connection of one match, over a WebSocket or an event stream of its own.

import { isAfter } from "./event_ids.js";
import { Observable } from "./observable.js";
import { randomId } from "./random_id.js";
import { ReconnectingTransport } from "./reconnecting_transport.js";

export class MatchConnection extends Observable {
  #match;
  #base;
  #clientId;
  #lastEventId;
  #transport;

  constructor({ match, clientId = randomId(), lastEventId = null, ...options }) {
    super();
    this.#match = encodeURIComponent(match);
    this.#base = options.base;
    this.#clientId = encodeURIComponent(clientId);
    this.#lastEventId = lastEventId;
    this.#transport = new ReconnectingTransport(options, {
      begin: (useEventStream) => this.#url(useEventStream),
      onOpen: () => {},
      onMessage: (message) => this.#onMessage(message),
      onLost: () => {},
      onState: (state) => this._setState(state),
    });
  }

  /** The id from which another connection can resume; null if the last message has none. */
  get lastEventId() {
    return this.#lastEventId;
  }

  /** Closes the connection permanently. */
  close() {
    this.#transport.close();
    this._setState({ name: "closed", attempt: 0 });
  }

  #url(useEventStream) {
    const path = useEventStream ? `${this.#match}/events` : `ws/id/${this.#match}/${this.#clientId}/`;
    const url = new URL(`api/matches/${path}`, this.#base);
    if (this.#lastEventId) url.searchParams.set("last_event_id", this.#lastEventId);
    return url;
  }

  #onMessage(message) {
    const isSnapshot = message.type === "initial-load" || message.type === "resync";
    if (!isSnapshot && !isAfter(message.id, this.#lastEventId)) return;
    if (isSnapshot || message.id) this.#lastEventId = message.id;
    this._dispatchMessage(message);
  }
}
