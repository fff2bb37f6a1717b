// Checks connections with several matches against a model server, in virtual time:
//
//   node multiplexing.mjs MODULE SCHEDULES
//
// A schedule is what a seed decides: changes, adds, removes, new and closed connections, refusals, lost changes. It runs
// once as it is, and once for each message that it has delivered, with the connection cut after that message. In every
// third schedule each connection is of another tab, and all tabs share one socket.

import { ModelServer, fetchOf, socketClass } from "./model_server.mjs";
import { ModelTabs } from "./model_tabs.mjs";
import { VirtualTime, seededRandom, settle } from "./virtual_time.mjs";

const [module, schedules] = process.argv.slice(2);
const MATCHES = [1, 2, 3];
const STEPS = 60;

/** What a page knows by one connection, and what must not happen to it. */
class Listener {
  #known = new Map(); // by match: the version, and the last id
  #lastLive = [0, 0];
  starts = 0;
  refused = [];

  constructor(connection, startsOver) {
    this.connection = connection;
    this.startsOver = startsOver; // also without a failure: a stream with each change, tabs when another one leads
    connection.onState(({ name }) => {
      if (name !== "live") for (const known of this.#known.values()) known.isLost = true;
    });
    connection.on("*", (message) => this.#onMessage(message));
    connection.on("match-update", ({ data }) => {
      if (data % 5 === 0) throw new Error("a handler that throws stops nothing");
    });
  }

  version(match) {
    return this.#known.get(match)?.version;
  }

  #onMessage(message) {
    const { type, match_id: match, id, data } = message;
    const known = this.#known.get(match);
    const isListed = this.connection.matches.includes(match);
    if (isListed === (type === "refused")) throw new Error(`${type} of ${match}, which is ${isListed ? "" : "not "}listed`);
    const isDisturbed = known && !known.isLost && !this.startsOver;
    if (type === "refused") {
      if (isDisturbed && message.code !== "forbidden") throw new Error("refused, and another connection asked");
      this.refused.push(message);
      this.#known.delete(match);
    } else if (type === "initial-load" && message.recovered) {
      if (known?.id !== id) throw new Error(`recovered from ${id}, not from ${known?.id}`);
      known.isLost = false;
      known.catchesUp = true;
    } else if (type === "initial-load" || type === "resync") {
      if (type === "resync" && !known) throw new Error("a resync before the first initial-load");
      if (isDisturbed && !isAfter(numbers(id), numbers(known.id))) throw new Error(`a start at ${id} after ${known.id}`);
      this.starts += 1;
      this.#known.set(match, { version: data, id, catchesUp: true });
    } else if (type === "match-update") {
      this.#onUpdate(known, message);
    } else if (type !== "stale" || !known) throw new Error(`unexpected: ${JSON.stringify(message)}`);
  }

  #onUpdate(known, { match_id: match, id, data, isLate }) {
    if (!known) throw new Error(`an update of ${match} before its start`);
    if (!isAfter(numbers(id), numbers(known.id))) throw new Error(`${id} after ${known.id}: repeated or out of order`);
    if (data > known.version + 1) throw new Error(`version ${data} after ${known.version}: lost`);
    Object.assign(known, { id, version: Math.max(data, known.version) });
    if (isLate) {
      if (!known.catchesUp) throw new Error(`${id} is late, and its match has not started`);
      return;
    }
    known.catchesUp = false;
    if (!isAfter(numbers(id), this.#lastLive)) throw new Error(`${id} after ${this.#lastLive}: not in commit order`);
    this.#lastLive = numbers(id);
  }

  forget(match) {
    this.#known.delete(match);
  }
}

function numbers(id) {
  return id.split("-").map(Number);
}

function isAfter([epoch, sequence], [lastEpoch, lastSequence]) {
  return epoch === lastEpoch ? sequence > lastSequence : epoch > lastEpoch;
}

class World {
  sockets = [];
  streams = [];
  listeners = [];
  delivered = 0;
  opened = 0;
  #choices;

  constructor(seed, cutAfter) {
    this.#choices = seededRandom(seed);
    this.random = seededRandom(seed + 1); // what the model chooses, so that a cut leaves the schedule as it is
    this.cutAfter = cutAfter;
    this.server = new ModelServer(this.random);
    this.time = new VirtualTime();
    this.time.install(seededRandom(seed + 2));
    globalThis.fetch = fetchOf(this);
    const isBlocked = this.#choices() < 0.3; // the page is left with event streams
    this.tabs = new ModelTabs();
    this.areTabs = seed % 3 === 2;
    if (this.areTabs) this.tabs.install();
    else ModelTabs.uninstall();
    this.options = { base: "http://model/", WebSocket: isBlocked ? null : socketClass(this) };
    if (isBlocked) globalThis.WebSocket = undefined;
  }

  #one(items) {
    return items[Math.floor(this.#choices() * items.length)];
  }

  get transports() {
    return [...this.sockets, ...this.streams];
  }

  connect() {
    const matches = MATCHES.filter(() => this.#choices() < 0.5);
    // Of one page are connections with the same options: another client id makes it another tab.
    const own = this.areTabs ? { shareTabs: true, clientId: `tab ${this.opened}` } : {};
    this.opened += 1;
    const startsOver = this.areTabs || !this.options.WebSocket;
    this.listeners.push(new Listener(connect({ ...this.options, ...own, matches }), startsOver));
  }

  add(listener, match) {
    listener.connection.add(match);
  }

  remove(listener, match) {
    listener.connection.remove(match);
    listener.forget(match);
  }

  change() {
    const choice = this.#choices();
    const match = this.#one(MATCHES);
    const listener = this.#one(this.listeners);
    if (this.areTabs && this.listeners.length > 1 && this.#choices() < 0.08) {
      this.close(this.listeners[0]); // the oldest tab leads, mostly
      this.connect();
    } else if (choice < 0.5) this.server.commit(match);
    else if (choice < 0.62) this.add(listener, match);
    else if (choice < 0.74) this.remove(listener, match);
    else if (choice < 0.8 && this.listeners.length < 4) this.connect();
    else if (choice < 0.83 && this.listeners.length > 1) this.close(listener);
    else if (choice < 0.86) this.server.isTooFast = !this.server.isTooFast;
    else if (choice < 0.89) this.forbid(match);
    else if (choice < 0.91) this.server.loseChanges(MATCHES);
    else this.time.next();
  }

  forbid(match) {
    if (this.server.forbidden.delete(match) || this.server.forbidden.size > 0) return;
    this.server.forbidden.add(match);
    for (const session of this.server.sessions) session.forbid(match);
  }

  close(listener) {
    this.listeners.splice(this.listeners.indexOf(listener), 1);
    listener.connection.close();
  }

  /** Something that is on its way arrives; returns whether there was anything. */
  async move() {
    const moves = this.tabs.moves;
    const more = this.transports.flatMap((transport) => [
      ...(transport.outbox.length ? [() => this.deliver(transport)] : []),
      ...(transport.isOpen === false ? [() => transport.open()] : []),
      ...(transport.inbox?.length ? [() => transport.take()] : []),
      ...[...transport.starting.keys()].map((match) => () => transport.finishStart(match)),
    ]);
    moves.push(...more);
    if (moves.length) this.#one(moves)();
    await settle();
    return moves.length > 0;
  }

  async deliver(transport) {
    transport.deliver();
    this.delivered += 1;
    if (this.delivered !== this.cutAfter) return;
    await settle();
    if (this.transports.includes(transport)) transport.cut(1006);
  }

  async run() {
    this.connect();
    this.connect();
    await settle();
    for (let step = 0; step < STEPS; step += 1) {
      if (this.#choices() < 0.7) this.change();
      for (let moves = Math.floor(this.#choices() * 5); moves > 0; moves -= 1) await this.move();
      await settle();
    }
    await this.end();
  }

  /** Everything arrives; then each connection knows the newest version of each of its matches. */
  async end() {
    this.server.isTooFast = false;
    this.server.forbidden.clear();
    for (let turn = 0; turn < 400 && !this.isDone(); turn += 1) {
      while (await this.move());
      if (!this.isDone()) this.time.next();
      await settle();
    }
    if (!this.isDone()) throw new Error(`not heard to the end: ${this.listeners.map((each) => this.summary(each))}`);
    this.starts = this.listeners.reduce((sum, { starts }) => sum + starts, 0);
    for (const listener of [...this.listeners]) this.close(listener);
    while (await this.move());
    if (this.transports.length || this.time.timers || !this.tabs.isEmpty) throw new Error("a closed connection leaves something behind");
  }

  isDone() {
    return this.listeners.every(({ connection: { matches }, version }, index) =>
      matches.every((match) => this.listeners[index].version(match) === this.server.version(match)),
    );
  }

  summary({ connection }) {
    return JSON.stringify({ state: connection.state, matches: connection.matches });
  }
}

let uncaught = null;
globalThis.reportError = () => {};
process.on("uncaughtException", (error) => {
  if (!/a handler that throws/.test(error.message)) uncaught ??= error;
});
const { connect } = await import(module);
const counts = { schedules: 0, cuts: 0, messages: 0, starts: 0 };

async function run(seed, cutAfter) {
  const world = new World(seed, cutAfter);
  try {
    await world.run();
    if (uncaught) throw uncaught;
  } catch (error) {
    console.error(`seed ${seed}, cut after ${cutAfter}: ${error.stack}`);
    process.exit(1);
  }
  counts.messages += world.delivered;
  counts.starts += world.starts;
  return world.delivered;
}

for (let seed = 0; seed < schedules; seed += 1) {
  const delivered = await run(seed, null);
  counts.schedules += 1;
  for (let cut = 1; cut <= delivered; cut += 1) await run(seed, cut);
  counts.cuts += delivered;
}
console.log(JSON.stringify(counts));
