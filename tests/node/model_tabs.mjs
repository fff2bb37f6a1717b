// A model of what tabs share in a browser: Web Locks and broadcast channels. What is on its way waits until the world
// lets it arrive: a lock's grant, and each message at each channel, in the order in which one sender posted.

export class ModelTabs {
  #locks = new Map(); // by name the requests, of which the first holds the lock if it is granted
  #channels = new Set();

  /** Makes this process a browser, whose pages are visible. */
  install() {
    const channels = this.#channels;
    globalThis.document = Object.assign(new EventTarget(), { hidden: false });
    globalThis.BroadcastChannel = class {
      waiting = new Map(); // by sender

      constructor(name) {
        this.name = name;
        channels.add(this);
      }

      postMessage(data) {
        const text = JSON.stringify(data);
        for (const channel of channels) {
          if (channel === this || channel.name !== this.name) continue;
          channel.waiting.set(this, [...(channel.waiting.get(this) ?? []), text]);
        }
      }

      close() {
        channels.delete(this);
      }
    };
    const locks = { request: (name, options, callback) => this.#request(name, options, callback) };
    Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
  }

  /** Makes this process one page of its own again. */
  static uninstall() {
    delete globalThis.document;
    Object.defineProperty(globalThis, "navigator", { value: undefined, configurable: true });
  }

  #request(name, { signal }, callback) {
    return new Promise((resolve, reject) => {
      if (!this.#locks.has(name)) this.#locks.set(name, []);
      const request = { isGranted: false, callback, resolve, reject };
      this.#locks.get(name).push(request);
      signal.addEventListener("abort", () => {
        if (request.isGranted) return;
        this.#remove(name, request);
        reject(new DOMException("aborted", "AbortError"));
      });
    });
  }

  #remove(name, request) {
    const requests = this.#locks.get(name);
    requests.splice(requests.indexOf(request), 1);
    if (requests.length === 0) this.#locks.delete(name);
  }

  async #grant(name, request) {
    request.isGranted = true;
    try {
      const result = await request.callback();
      this.#remove(name, request);
      request.resolve(result);
    } catch (error) {
      this.#remove(name, request);
      request.reject(error);
    }
  }

  /** What can arrive next. */
  get moves() {
    const grants = [...this.#locks].filter(([, [first]]) => !first.isGranted);
    const waiting = [...this.#channels].flatMap((channel) => [...channel.waiting.keys()].map((sender) => [channel, sender]));
    return [
      ...grants.map(([name, [first]]) => () => this.#grant(name, first)),
      ...waiting.map(([channel, sender]) => () => deliver(channel, sender)),
    ];
  }

  get isEmpty() {
    return this.#locks.size === 0 && this.#channels.size === 0;
  }
}

function deliver(channel, sender) {
  const [first, ...others] = channel.waiting.get(sender);
  if (others.length) channel.waiting.set(sender, others);
  else channel.waiting.delete(sender);
  channel.onmessage({ data: JSON.parse(first) });
}
