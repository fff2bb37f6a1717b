// The data flow as a diagram: each part with its state, each hop between two parts with its rate and latency.

import { FAN_IN, FAN_OUT, MAX_LINES, drawHop, worstKind } from "./diagram_hops.js";
import { $, element, reconcile, setAttribute, setText } from "./dom.js";
import { bytes, count, duration, plural, rate, share, stateName } from "./format.js";
import { Rates } from "./rates.js";

const NOT_RESPONDING = ["late", "dead"];
const MAX_CHIPS = MAX_LINES; // listeners, and workers; the tables below list all
const IDLE_ROLES = ["waiting", "reserve"]; // of listeners: others are at work

const rates = new Rates();
const part = (name) => $("diagram").querySelector(`[data-part=${name}]`);

export function renderDiagram(status) {
  const direct = status.mode === "postgres";
  $("diagram").dataset.mode = status.mode;
  const listeners = withoutReplaced(status.listeners);
  const workers = status.workers.filter((worker) => worker.state !== "stopped");
  const eventRates = measureRates(status, listeners, workers);
  renderPostgres(status.postgres);
  renderListeners(direct, listeners, eventRates);
  renderRedis(status.redis);
  renderWorkers(workers, eventRates);
  renderClients(status, workers);
  renderHops(status, listeners, workers, eventRates);
  $("bypass").hidden = !direct;
  setText($("bypass"), `${plural(status.postgres.listening, "LISTEN connection")}: each worker has its own`);
}

/** The listeners that run, and those that died without a successor in the same pod. */
function withoutReplaced(listeners) {
  const running = new Set(listeners.filter(isRunning).map(serviceOf));
  return listeners.filter((each) => isRunning(each) || (each.state !== "stopped" && !running.has(serviceOf(each))));
}

const serviceOf = ({ pod, program }) => JSON.stringify([pod, program]);
const isRunning = ({ state }) => !NOT_RESPONDING.includes(state) && state !== "stopped";

/** Events per second by process, and of the stream; null where a rate is unknown. */
function measureRates({ at, redis }, listeners, workers) {
  const growth = (name, { state }, counter) => (state === "unknown" ? null : rates.add(name, counter, at));
  const received = new Map(listeners.map((each) => [each, growth(`received ${each.uid}`, each, each.received)]));
  const events = new Map(workers.map((each) => [each, growth(`events ${keyOf(each)}`, each, each.events)]));
  const [epoch, sequence] = String(redis.head ?? "").split("-");
  const appended = redis.state === "up" ? growth(`head ${epoch}`, redis, Number(sequence || NaN)) : null;
  rates.removeStale(at);
  return { received, appended, events };
}

const nameOf = ({ pod, pid }) => `${pod}/${pid}`;
const keyOf = (worker) => worker.uid || nameOf(worker); // a worker of an older version has no uid

// ---- the parts

function renderPostgres({ state, where, queue_usage }) {
  const [address, database = ""] = String(where ?? "").split(", ");
  const lines = [address, database, `notification queue ${share(queue_usage)}`];
  renderBox(part("postgres").querySelector(".box"), state, stateName(state), lines);
}

function renderRedis({ state, where, head, stream_length, outage }) {
  const stored = state === "unused" ? "" : `${count(stream_length)} events stored`;
  renderBox(part("redis").querySelector(".box"), state, stateName(state), [where, stored, head, outage]);
}

function renderClients({ clients, mode }, workers) {
  const queued = workers.reduce((sum, worker) => sum + (worker.queue_bytes ?? 0), 0);
  const box = part("clients").querySelector(".box");
  const servedBy =
    mode === "postgres" ? "of the worker that serves this page" : `of ${plural(workers.length, "worker")}`;
  renderBox(box, clients ? "up" : "none", count(clients), [servedBy, `${bytes(queued)} queued`]);
}

function renderListeners(direct, listeners, { received }) {
  const body = part("listeners").querySelector(".body");
  if (direct || !listeners.length) {
    const [name, state, text] = direct
      ? ["unused", "unused", "the workers LISTEN themselves"]
      : ["none", "dead", "no listener runs"];
    renderChips(body, [{ key: name, name, state, tag: "", text }]);
    return;
  }
  renderChips(
    body,
    listeners.map((each) => ({
      key: each.uid,
      name: each.pod,
      state: each.state === "alive" && !["primary", "standby", ...IDLE_ROLES].includes(each.role) ? "late" : each.state,
      tag: each.state === "alive" ? each.role : stateName(each.state),
      text: NOT_RESPONDING.includes(each.state)
        ? `no heartbeat for ${duration(each.beat_age)}`
        : `${rateText(received.get(each))}${count(each.buffered)} buffered`,
    })),
  );
}

function renderWorkers(workers, { events }) {
  renderChips(
    part("workers").querySelector(".body"),
    workers.map((each) => ({
      key: keyOf(each),
      name: nameOf(each),
      state: each.state,
      tag: each.state === "alive" ? "" : stateName(each.state),
      text: `${rateText(events.get(each))}${plural(each.clients, "client")}`,
    })),
  );
}

const rateText = (perSecond) => (perSecond === null ? "" : `${rate(perSecond)}/s, `);

function renderBox(box, state, title, lines) {
  if (!box.children.length) {
    const texts = lines.map(() => element("span", "line"));
    box.append(element("strong"), ...texts);
  }
  box.dataset.state = state;
  setText(box.firstElementChild, title);
  lines.forEach((line, index) => setText(box.children[index + 1], line));
}

function renderChips(list, chips) {
  const shown = chips.length > MAX_CHIPS ? chips.slice(0, MAX_CHIPS - 1) : chips;
  const hidden = chips.slice(shown.length);
  const unhealthy = hidden.find((chip) => chip.state !== "alive") ?? { state: "alive", tag: "" };
  const more = { ...unhealthy, key: "more", name: `${hidden.length} more`, text: "in the table below" };
  reconcile(list, hidden.length ? [...shown, more] : shown, (chip) => chip.key, createChip, updateChip);
}

function createChip() {
  const chip = element("li", "chip");
  const box = element("div", "box");
  const head = element("strong");
  head.append(element("span"), element("span", "tag"));
  box.append(head, element("span", "line"));
  chip.append(box);
  return chip;
}

function updateChip(chip, { name, state, tag, text }) {
  const box = chip.firstElementChild;
  const [nameNode, tagNode] = box.firstElementChild.children;
  setAttribute(box, "data-state", state);
  setText(nameNode, name);
  setText(tagNode, tag);
  setText(box.lastElementChild, text);
}

// ---- the hops

function renderHops(status, listeners, workers, eventRates) {
  const { mode, redis, postgres, latency, clients, catching_up: catchingUp } = status;
  const { postgres_listener_ms: listenerMs, listener_worker_ms: workerMs } = latency.hops;
  const direct = mode === "postgres";
  const atMost = catchingUp ? "behind" : "flowing";
  if (!direct) {
    const senders = listeners.length ? listeners : [{ state: "dead" }];
    const received = Math.max(...[...eventRates.received.values()].filter(Number.isFinite));
    const toListeners = senders.map((each) => worstKind(postgres, each, IDLE_ROLES.includes(each.role) ? "idle" : "flowing"));
    const toRedis = senders.map((each) => worstKind(each, redis, IDLE_ROLES.includes(each.role) ? "idle" : atMost));
    drawHop(part("listeners"), received, listenerMs, toListeners, FAN_OUT);
    drawHop(part("redis"), eventRates.appended, null, toRedis, FAN_IN);
  }
  const [source, ms] = direct ? [postgres, latency.p50_ms] : [redis, workerMs];
  const toWorkers = workers.map((each) => worstKind(source, each, atMost));
  const toClients = workers.map((each) => worstKind(each, clients && status.rate ? "flowing" : "idle"));
  drawHop(part("workers"), status.rate, ms, toWorkers, FAN_OUT);
  drawHop(part("clients"), null, null, toClients, FAN_IN);
}
