// A model of the server: what docs/protocol.md says of several matches on one connection, and nothing more. Where the
// protocol leaves a choice, the model makes it at random: how old a snapshot is, in what order matches start, and
// whether a request that was taken back is still answered.

const SNAPSHOT = { type: "initial-load", recovered: false };

export class ModelServer {
  #random;
  #epoch = 1;
  #events = []; // of this epoch: an event's sequence number is its place, from 1
  #versions = new Map(); // by match: how often it has changed
  sessions = new Set();
  forbidden = new Set();
  isTooFast = false;

  constructor(random) {
    this.#random = random;
  }

  version(match) {
    return this.#versions.get(match) ?? 0;
  }

  get head() {
    return this.#id(this.#events.length);
  }

  #id(sequence) {
    return `${this.#epoch}-${sequence}`;
  }

  /** A match changes, and every connection that hears it is sent an update. */
  commit(match) {
    this.#versions.set(match, this.version(match) + 1);
    this.#events.push({ match, version: this.version(match) });
    const update = this.#update(this.#events.length);
    for (const session of this.sessions) if (session.started.has(match)) session.send(update);
  }

  /** Changes are lost: a new epoch begins, and a resync announces it. */
  loseChanges(matches) {
    for (const match of matches) this.#versions.set(match, this.version(match) + 1);
    this.#epoch += 1;
    this.#events = [];
    for (const session of this.sessions) {
      for (const match of session.started) {
        if (this.#random() < 0.3) session.send({ type: "stale", id: null, match_id: match });
        session.send({ type: "resync", id: this.head, match_id: match, data: this.version(match) });
      }
    }
  }

  #update(sequence) {
    const { match, version } = this.#events[sequence - 1];
    return { type: "match-update", id: this.#id(sequence), match_id: match, data: version };
  }

  /** A match starts on a connection: an initial-load, the events since, and from now on every one. */
  start(session, match, after) {
    const [epoch, sequence] = (after ?? "0-0").split("-").map(Number);
    const recovered = epoch === this.#epoch && sequence <= this.#events.length && this.#random() < 0.9;
    const position = recovered ? sequence : Math.floor(this.#events.length * (this.#random() < 0.5 ? 1 : this.#random()));
    const load = { type: "initial-load", recovered, id: this.#id(position), match_id: match };
    session.send({ ...load, data: recovered ? null : this.#versionAt(match, position) });
    for (let next = position + 1; next <= this.#events.length; next += 1) {
      if (this.#events[next - 1].match === match) session.send({ ...this.#update(next), isLate: true });
    }
    session.started.add(match);
  }

  // A snapshot may be newer than its position, never older.
  #versionAt(match, position) {
    const later = this.#events.slice(position).filter((event) => event.match === match);
    return this.version(match) - Math.floor(this.#random() * (later.length + 1));
  }

  refusal(match) {
    if (this.forbidden.has(match)) return { type: "refused", match_id: match, code: "forbidden", reason: "" };
    return this.isTooFast ? { type: "refused", match_id: match, code: "too-fast", reason: "" } : null;
  }
}

/** One connection at the server: `outbox` is on its way to the client. */
export class Session {
  #server;
  outbox = [];
  started = new Set(); // the matches whose events come
  starting = new Map(); // the matches whose snapshot is being queried, and from where they resume

  constructor(server) {
    this.#server = server;
    server.sessions.add(this);
  }

  send(message) {
    this.outbox.push(JSON.stringify(message));
  }

  close() {
    this.#server.sessions.delete(this);
  }

  /** The snapshot of one of the matches that wait is there. */
  finishStart(match) {
    const after = this.starting.get(match);
    this.starting.delete(match);
    this.#server.start(this, match, after);
  }

  forbid(match) {
    if (!this.started.delete(match) && !this.starting.delete(match)) return;
    this.send(this.#server.refusal(match));
  }
}

/** The class for the option `WebSocket`: `inbox` is on its way to the server. */
export function socketClass(world) {
  return class ModelSocket extends Session {
    inbox = [];
    isOpen = false;

    constructor(url) {
      super(world.server);
      if (!/\/api\/matches\/ws\/[^/]+\/$/.test(url.pathname)) throw new Error(`no such address: ${url}`);
      world.sockets.push(this);
    }

    open() {
      this.isOpen = true;
      this.onopen?.();
    }

    /** For the client: sends a text. */
    send(message) {
      if (typeof message === "string") {
        if (!this.isOpen) throw new Error("a socket that is not open sends nothing");
        this.inbox.push(message);
      } else super.send(message);
    }

    close() {
      super.close();
      world.sockets.splice(world.sockets.indexOf(this), 1);
    }

    cut(code) {
      const { onclose } = this;
      this.close();
      onclose?.({ code });
    }

    deliver() {
      this.onmessage?.({ data: this.outbox.shift() });
    }

    /** The server takes one message. */
    take() {
      const { type, match_id: match, last_event_id: after } = JSON.parse(this.inbox.shift());
      if (type === "subscribe") {
        const refusal = world.server.refusal(match);
        if (refusal) super.send(refusal);
        if (refusal?.code === "forbidden") this.started.delete(match);
        if (refusal) return;
        if (this.starting.has(match)) throw new Error("a request is repeated before it was answered");
        this.started.delete(match);
        this.starting.set(match, after);
      } else if (type === "unsubscribe") {
        if (this.starting.has(match) && world.random() < 0.5) this.finishStart(match);
        this.starting.delete(match);
        this.started.delete(match);
        super.send({ type: "unsubscribed", match_id: match });
      } else if (type === "ping") super.send({ type: "pong" });
    }
  };
}

/** The function `fetch`, for the event stream. */
export function fetchOf(world) {
  return async (url, { signal }) => {
    const parameters = [...url.searchParams];
    const session = new Session(world.server);
    const body = new ReadableStream({
      start(controller) {
        Object.assign(session, {
          deliver: () => controller.enqueue(new TextEncoder().encode(`data: ${session.outbox.shift()}\n\n`)),
          cut() {
            session.close();
            world.streams.splice(world.streams.indexOf(session), 1);
            controller.close();
          },
        });
        signal.addEventListener("abort", () => {
          if (!world.streams.includes(session)) return;
          session.close();
          world.streams.splice(world.streams.indexOf(session), 1);
          controller.error(signal.reason);
        });
      },
    });
    const matches = parameters.filter(([name]) => name === "match").map(([, match]) => match);
    if (matches.length === 0) throw new Error("a request without a match");
    if (matches.every((match) => world.server.forbidden.has(Number(match)))) {
      session.close();
      return Response.json({ server: "notifymux", error: "other matches only" }, { status: 403 });
    }
    world.streams.push(session);
    parameters.forEach(([name, text], index) => {
      if (name !== "match") return;
      const match = Number(text);
      const [next, after] = parameters[index + 1] ?? [];
      if (world.server.forbidden.has(match)) session.send(world.server.refusal(match));
      else world.server.start(session, match, next === "after" ? after : undefined);
    });
    return new Response(body);
  };
}
