// The most recent events, newest first. The list has a maximum length: its oldest row is reused for the newest event.

import { $, element, reconcile, setText } from "./dom.js";
import { clock, count, plural } from "./format.js";

const MAX_ROWS = 200;
const MAX_CHANNELS = 50;
const FILTER_DELAY_MS = 400; // after the last keystroke

let paused = false;
let skippedWhilePaused = 0;
let filterTimer;

/** @param {(channel: string, match: string) => void} onFilter - called when the filter changes */
export function startRecentEvents(onFilter) {
  const apply = () => {
    clearTimeout(filterTimer);
    $("recent-events").replaceChildren();
    setText($("recent-events-note"), "Waiting for the next event.");
    onFilter($("filter-channel").value.trim(), $("filter-match").value.trim());
  };
  $("filter").addEventListener("input", () => {
    clearTimeout(filterTimer);
    filterTimer = setTimeout(apply, FILTER_DELAY_MS);
  });
  $("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  $("pause").addEventListener("click", togglePause);
}

function togglePause() {
  paused = !paused;
  skippedWhilePaused = 0;
  $("recent-events").dataset.paused = paused;
  setText($("pause"), paused ? "Resume" : "Pause");
  if (paused) setText($("recent-events-note"), "Paused.");
}

export function renderRecentEvents({ tail: events, tail_skipped: skipped, unroutable }) {
  renderUnroutable(unroutable);
  if (paused) {
    skippedWhilePaused += events.length + skipped;
    setText($("recent-events-note"), `Paused. ${plural(skippedWhilePaused, "event")} skipped.`);
    return;
  }
  for (const event of events) {
    $("recent-events").prepend(updateRow(unusedRow(), event));
    suggestChannel(event.channel);
  }
  if (events.length) {
    setText($("recent-events-note"), skipped ? `${count(skipped)} more in the last second are not shown.` : "");
  }
}

/** Events that this worker received and no client hears. */
function renderUnroutable(unroutable) {
  const describe = (node, { channel, events, text }) =>
    setText(node, `No client heard ${plural(events, "event")} on ${channel}: ${text}.`);
  reconcile($("unroutable"), unroutable, ({ channel, cause }) => `${cause} ${channel}`, () => element("li"), describe);
  $("unroutable").hidden = !unroutable.length;
}

function unusedRow() {
  const list = $("recent-events");
  if (list.children.length >= MAX_ROWS) return list.lastElementChild;
  const row = element("li");
  row.append(
    element("time"),
    element("span", "channel"),
    element("span", "match"),
    element("code", "payload"),
    element("span", "id"),
  );
  return row;
}

function updateRow(row, { at, id, channel, match, payload }) {
  [clock(at), channel, match, payload, id].forEach((value, index) => setText(row.children[index], value));
  return row;
}

/** Adds a channel to the suggestions of the filter. */
function suggestChannel(channel) {
  const list = $("channels");
  if (list.children.length >= MAX_CHANNELS || [...list.children].some((option) => option.value === channel)) return;
  const option = element("option");
  option.value = channel;
  list.append(option);
}
