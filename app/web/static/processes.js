// The tables of all listeners and workers in all pods.

import { $, setText } from "./dom.js";
import { UNKNOWN, bytes, clock, count, duration, milliseconds, stateName } from "./format.js";
import { Table } from "./table.js";

const since = (at, now) => (Number.isFinite(at) ? `${clock(at)} (${duration(now - at)})` : UNKNOWN);
const heartbeat = { name: "Heartbeat", text: ({ beat_age }) => `${duration(beat_age)} ago`, isFigure: true };
const position = { name: "Position", text: positionInEpoch, isFigure: true };
const state = { name: "State", text: (each) => stateName(each.state), state: (each) => each.state };

const listeners = new Table($("listeners"), ({ uid }) => uid, [
  { name: "Listener", text: ({ pod, program }) => (program === "listener" ? pod : `${pod} ${program}`) },
  state,
  { name: "Role", text: ({ role }) => role },
  position,
  { name: "Buffered", text: ({ buffered }) => count(buffered), isFigure: true },
  { name: "Redis round trip", text: ({ round_trip_ms }) => milliseconds(round_trip_ms), isFigure: true },
  { name: "Received", text: ({ received }) => count(received), isFigure: true },
  { name: "Added", text: ({ added }) => count(added), isFigure: true },
  { name: "Suppressed", text: ({ suppressed }) => count(suppressed), isFigure: true },
  { name: "Put back", text: ({ restored }) => count(restored), isFigure: true },
  { name: "Connected since", text: ({ connected_since }, { at }) => since(connected_since, at), isFigure: true },
  heartbeat,
]);

const workers = new Table($("workers"), ({ uid, pod, pid }) => uid || `${pod}/${pid}`, [
  { name: "Worker", text: ({ pod, pid }) => `${pod}/${pid}` },
  state,
  { name: "Clients", text: ({ clients }) => count(clients), isFigure: true },
  position,
  { name: "p50", text: ({ p50_ms }) => milliseconds(p50_ms), isFigure: true },
  { name: "p99", text: ({ p99_ms }) => milliseconds(p99_ms), isFigure: true },
  { name: "Events", text: ({ events }) => count(events), isFigure: true },
  { name: "Gaps", text: ({ gaps }) => count(gaps), isFigure: true },
  { name: "By", text: ({ mode, fed }) => (fed ? "feed" : mode === "redis" ? "Redis" : "LISTEN") },
  { name: "Suppressed", text: ({ suppressed }) => count(suppressed), isFigure: true },
  { name: "Slow closes", text: ({ slow_closes }) => count(slow_closes), isFigure: true },
  { name: "Recovered", text: ({ recovered }) => count(recovered), isFigure: true },
  { name: "Snapshots", text: ({ snapshots }) => count(snapshots), isFigure: true },
  { name: "Queued", text: ({ queue_bytes }) => bytes(queue_bytes), isFigure: true },
  { name: "Started", text: ({ started }, { at }) => since(started, at), isFigure: true },
]);

/** The replication slot in one line. */
function slotText({ name, reader, wal_status, retained_bytes, max_bytes, confirmed, confirmed_since, at }, now) {
  const reads = reader === null ? "no listener reads it" : `read by ${reader}`;
  const limit = max_bytes === null ? "" : max_bytes < 0 ? " (no limit)" : ` of at most ${bytes(max_bytes)}`;
  const known =
    at === null
      ? "nothing is known of it"
      : `${bytes(retained_bytes)} of WAL kept${limit}, ${wal_status}, confirmed up to ${confirmed} since ` +
        `${since(confirmed_since, now)}; PostgreSQL was asked ${duration(now - at)} ago`;
  return `Replication slot ${name}: ${reads}; ${known}.`;
}

/** The sequence number; the whole id if its epoch is not the epoch of the stream. */
function positionInEpoch({ position: id }, { redis }) {
  const [epoch, sequence] = String(id ?? "").split("-");
  return epoch === String(redis.head ?? "").split("-")[0] ? count(Number(sequence)) : (id ?? UNKNOWN);
}

export function renderProcesses(status) {
  listeners.render(status.listeners, status);
  workers.render(status.workers, status);
  $("no-others").hidden = status.mode !== "postgres";
  $("listeners").hidden = !status.listeners.length;
  $("no-listeners").hidden = status.listeners.length > 0;
  const none =
    status.mode === "postgres" ? "None is needed: the workers LISTEN themselves." : "No listener is registered.";
  setText($("no-listeners"), none);
  $("slot").hidden = !status.slot;
  if (status.slot) setText($("slot"), slotText(status.slot, status.at));
}
