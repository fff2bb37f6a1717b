// The events as they come, newest first, in a list that doesn't grow: its oldest row becomes the newest.

import { $, element, setText } from "./dom.js";
import { clock, count, plural } from "./format.js";

const ROWS = 200;
const CHANNELS = 50;
const TYPED = 400; // milliseconds after which what was typed counts

let paused = false;
let passed = 0; // while it was paused
let typing; // timer

/** @param {(channel: string, match: string) => void} changed - hears what the filter is set to */
export function startTail(changed) {
  const apply = () => {
    clearTimeout(typing);
    $("tail").replaceChildren();
    setText($("tail-note"), "Waiting for the next one.");
    changed($("filter-channel").value.trim(), $("filter-match").value.trim());
  };
  $("filter").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(apply, TYPED);
  });
  $("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  $("pause").addEventListener("click", pause);
}

function pause() {
  paused = !paused;
  passed = 0;
  $("tail").dataset.paused = paused;
  setText($("pause"), paused ? "Go on" : "Pause");
  if (paused) setText($("tail-note"), "Paused.");
}

export function renderTail({ tail, tail_skipped: skipped }) {
  if (paused) {
    passed += tail.length + skipped;
    setText($("tail-note"), `Paused. ${plural(passed, "event")} passed by.`);
    return;
  }
  for (const event of tail) {
    $("tail").prepend(fill(spare(), event));
    offer(event.channel);
  }
  if (tail.length) setText($("tail-note"), skipped ? `${count(skipped)} more in the last second are not shown.` : "");
}

function spare() {
  const list = $("tail");
  if (list.children.length >= ROWS) return list.lastElementChild;
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

function fill(row, { at, id, channel, match, payload }) {
  const [when, where, whose, what, number] = row.children;
  setText(when, clock(at));
  setText(where, channel);
  setText(whose, match == null ? "" : match);
  setText(what, payload);
  setText(number, id ?? "");
  return row;
}

/** Offers a channel that was seen to who types a filter. */
function offer(channel) {
  const list = $("channels");
  if (list.children.length >= CHANNELS || [...list.children].some((option) => option.value === channel)) return;
  const option = element("option");
  option.value = channel;
  list.append(option);
}
