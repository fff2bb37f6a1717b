// The handlers and the state of a connection.

export class Observable {
  #handlers = new EventTarget(); // a handler that throws does not stop the others
  #state = { name: "connecting", attempt: 0 };

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

  #addHandler(type, handler) {
    const listener = ({ detail }) => handler(detail);
    this.#handlers.addEventListener(type, listener);
    return () => this.#handlers.removeEventListener(type, listener);
  }

  #dispatch(type, detail) {
    this.#handlers.dispatchEvent(Object.assign(new Event(type), { detail }));
  }

  _setState(state) {
    this.#state = state;
    this.#dispatch("state", state);
  }

  _dispatchMessage(message) {
    this.#dispatch(`message ${message.type}`, message);
    this.#dispatch("message *", message);
  }
}
