// The state of a demo page's connection, in its header. CSS styles the page by `data-connection`.

import { $, setText } from "./dom.js";

const RESYNCED_MS = 6_000; // how long a snapshot is announced
const TEXTS = {
  connecting: "Connecting…",
  live: "Live",
  refused: "Refused",
  replaced: "Open elsewhere",
  closed: "Closed",
};

let wasLive = false;
let connectionState = "connecting";
let resyncedTimer = 0;

function show(name, text) {
  document.body.dataset.connection = name;
  setText($("connection"), text);
}

export function showConnectionState({ name, attempt }) {
  clearTimeout(resyncedTimer);
  connectionState = name;
  const reconnecting = `${wasLive ? "Reconnecting" : "No connection yet"} (attempt ${attempt})…`;
  show(name, TEXTS[name] ?? reconnecting);
}

/** Shows that no connection is needed: the page has no match. */
export function showIdle() {
  clearTimeout(resyncedTimer);
  show("connecting", "No match");
}

/**
 * Shows how a match started or went on after a gap.
 *
 * @param {object} message
 * @param {boolean} wasStarted - the match had a start before
 */
export function showStart({ type, recovered, data }, wasStarted) {
  if (type !== "resync" && type !== "initial-load") return;
  wasLive = true;
  if (recovered) showBriefly("Live, nothing missed");
  else if (wasStarted && data) showBriefly("Resynced");
}

function showBriefly(text) {
  clearTimeout(resyncedTimer);
  show("resynced", text);
  const showLive = () => connectionState === "live" && show("live", TEXTS.live);
  resyncedTimer = setTimeout(showLive, RESYNCED_MS);
}

/** Why there is nothing to see, for people; empty unless the server has refused the page for good. */
export function refusalText({ name, reason }) {
  return name === "refused" ? `The server refuses this page: ${reason}.` : "";
}
