// The pipe as a picture: each part with its state, each way between two of them with its rate and latency.

import { $, element, keep, setAttribute, setText } from "./dom.js";
import { bytes, count, duration, plural, rate, share, stateName } from "./format.js";
import { Rates } from "./rates.js";
import { FAN, GATHER, MOST_LINES, drawWay, worst } from "./diagram_hops.js";

const SILENT = ["late", "dead"];
const SHOWN = MOST_LINES; // listeners, and workers; the tables below have all

const rates = new Rates();
const part = (name) => $("pipe").querySelector(`[data-part=${name}]`);

export function renderPipe(status) {
  const direct = status.mode === "postgres";
  $("pipe").dataset.mode = status.mode;
  const listeners = current(status.listeners);
  const workers = status.workers.filter((worker) => worker.state !== "stopped");
  const flows = ratesOf(status, listeners, workers);
  renderPostgres(status.postgres);
  renderListeners(direct, listeners, flows);
  renderRedis(status.redis);
  renderWorkers(workers, flows);
  renderClients(status, workers);
  renderWays(status, listeners, workers, flows);
  $("bypass").hidden = !direct;
  setText($("bypass"), `${plural(status.postgres.listening, "LISTEN connection")}: each worker has its own`);
}

/** The listeners without those whose place another has taken. */
function current(listeners) {
  const alive = new Set(listeners.filter(isUp).map(placeOf));
  return listeners.filter((each) => isUp(each) || (each.state !== "stopped" && !alive.has(placeOf(each))));
}

const placeOf = ({ pod, program }) => JSON.stringify([pod, program]);
const isUp = ({ state }) => !SILENT.includes(state) && state !== "stopped";

function ratesOf({ at, redis }, listeners, workers) {
  const growth = (name, { state }, counter) => (state === "unknown" ? null : rates.note(name, counter, at));
  const received = new Map(listeners.map((each) => [each, growth(`received ${each.uid}`, each, each.received)]));
  const events = new Map(workers.map((each) => [each, growth(`events ${keyOf(each)}`, each, each.events)]));
  const [epoch, sequence] = String(redis.head ?? "").split("-");
  const appended = redis.state === "up" ? growth(`head ${epoch}`, redis, Number(sequence || NaN)) : null;
  rates.forget(at);
  return { received, appended, events };
}

const keyOf = ({ pod, pid }) => `${pod}/${pid}`;

// ---- the parts

function renderPostgres({ state, where, queue_usage }) {
  const [address, database = ""] = String(where ?? "").split(", ");
  const lines = [address, database, `notification queue ${share(queue_usage)}`];
  renderBox(part("postgres").querySelector(".box"), state, stateName(state), lines);
}

function renderRedis({ state, where, head, stream_length, outage }) {
  const kept = state === "unused" ? "" : `${count(stream_length)} events kept`;
  renderBox(part("redis").querySelector(".box"), state, stateName(state), [where, kept, head, outage]);
}

function renderClients({ clients, mode }, workers) {
  const queued = workers.reduce((sum, worker) => sum + (worker.queue_bytes ?? 0), 0);
  const box = part("clients").querySelector(".box");
  const whose = mode === "postgres" ? "of the worker that answers" : `of ${plural(workers.length, "worker")}`;
  renderBox(box, clients ? "up" : "none", count(clients), [whose, `${bytes(queued)} queued`]);
}

function renderListeners(direct, listeners, { received }) {
  const body = part("listeners").querySelector(".body");
  if (direct || !listeners.length) {
    const [name, state, text] = direct
      ? ["unused", "unused", "the workers LISTEN themselves"]
      : ["none", "dead", "nobody LISTENs"];
    renderChips(body, [{ key: name, name, state, tag: "", text }]);
    return;
  }
  renderChips(
    body,
    listeners.map((each) => ({
      key: each.uid,
      name: each.pod,
      state: each.state === "alive" && !["primary", "standby"].includes(each.role) ? "late" : each.state,
      tag: each.state === "alive" ? each.role : stateName(each.state),
      text: SILENT.includes(each.state)
        ? `silent for ${duration(each.beat_age)}`
        : `${pace(received.get(each))}${count(each.buffered)} held`,
    })),
  );
}

function renderWorkers(workers, { events }) {
  renderChips(
    part("workers").querySelector(".body"),
    workers.map((each) => ({
      key: keyOf(each),
      name: keyOf(each),
      state: each.state,
      tag: each.state === "alive" ? "" : stateName(each.state),
      text: `${pace(events.get(each))}${plural(each.clients, "client")}`,
    })),
  );
}

const pace = (perSecond) => (perSecond === null ? "" : `${rate(perSecond)}/s, `);

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
  const shown = chips.length > SHOWN ? chips.slice(0, SHOWN - 1) : chips;
  const hidden = chips.slice(shown.length);
  const worst = hidden.find((chip) => chip.state !== "alive") ?? { state: "alive", tag: "" };
  const more = { ...worst, key: "more", name: `${hidden.length} more`, text: "in the table below" };
  keep(list, hidden.length ? [...shown, more] : shown, (chip) => chip.key, makeChip, updateChip);
}

function makeChip() {
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

// ---- the ways between them

function renderWays({ mode, redis, postgres, latency, rate: heard, clients, catching_up }, listeners, workers, flows) {
  const direct = mode === "postgres";
  const hops = latency.hops;
  const behind = catching_up ? "behind" : "flows";
  if (!direct) {
    const listening = listeners.length ? listeners : [{ state: "dead" }];
    const received = Math.max(...[...flows.received.values()].filter(Number.isFinite));
    drawWay(
      part("listeners"),
      received,
      hops.postgres_listener_ms,
      listening.map((each) => worst(postgres, each)),
      FAN,
    );
    drawWay(
      part("redis"),
      flows.appended,
      null,
      listening.map((each) => worst(each, redis, behind)),
      GATHER,
    );
  }
  const [source, ms] = direct ? [postgres, latency.p50_ms] : [redis, hops.listener_worker_ms];
  drawWay(
    part("workers"),
    heard,
    ms,
    workers.map((each) => worst(source, each, behind)),
    FAN,
  );
  const onwards = clients && heard ? "flows" : "still";
  drawWay(
    part("clients"),
    null,
    null,
    workers.map((each) => worst(each, onwards)),
    GATHER,
  );
}
