// The state of the system in one line, and the number of LISTEN connections beside that of direct mode.

import { $, element, reconcile, setText } from "./dom.js";
import { clock, count, milliseconds, plural } from "./format.js";

const TITLES = { healthy: "Healthy", degraded: "Degraded", broken: "Broken" };

export function renderBanner(status) {
  const { state, problems } = status;
  const title = TITLES[state] ?? String(state);
  showState(title, detail(status), problems);
  document.title = `${state === "healthy" ? "✓" : "⚠"} ${title} · notifymux`;
  document.body.dataset.state = state in TITLES ? state : "unknown";
  $("embedded").hidden = $("demo").hidden = !status.embedded;
  announce(state, [title, ...problems].join(". "));
}

function detail({ state, clients, workers, latency, mode }) {
  if (state === "broken")
    return "The worker that serves this page can't recover by itself. Restart it: supervisorctl restart app";
  if (state === "degraded")
    return "Events are delayed, or their delivery is not confirmed. notifymux recovers when these problems end:";
  const alive = workers.filter((worker) => worker.state === "alive").length;
  const receivers = mode === "postgres" ? "the worker that serves this page" : plural(alive, "worker");
  const time = Number.isFinite(latency.p50_ms) ? ` in ${milliseconds(latency.p50_ms)}` : "";
  const onwards = clients ? `, and on to ${plural(clients, "client")}` : "; no client is connected";
  return `Events flow from PostgreSQL to ${receivers}${time}${onwards}.`;
}

function showState(title, text, problems) {
  setText($("state"), title);
  setText($("state-detail"), text);
  reconcile(
    $("problems"),
    problems,
    (_, index) => index,
    () => element("li"),
    setText,
  );
}

let announcedState = "";

// Screen readers announce a change of state, not every change of a figure in the problems.
function announce(state, text) {
  if (announcedState !== state) setText($("announcement"), text);
  announcedState = state;
}

/** Shows that there is no connection, or that the status shown is out of date. */
export function renderConnection({ name, reason }, lastStatus) {
  document.body.dataset.connection = name;
  $("identify").hidden = name !== "refused";
  $("stale").hidden = !lastStatus || name === "live" || name === "connecting";
  if (name === "live" || name === "connecting") return;
  document.body.dataset.state = "unknown";
  const [title, text] = {
    lost: ["No connection", `Reconnecting: ${reason}. Whether events flow is unknown.`],
    refused: ["An operator’s token is needed", `The server says: ${reason}.`],
    off: ["No status page", "It is disabled on this server: STATUS_PAGE=false."],
  }[name];
  showState(title, text, []);
  if (lastStatus) setText($("stale"), `The status below is as of ${clock(lastStatus.at)}.`);
  document.title = `⚠ ${title} · notifymux`;
  announce(name, title);
}

export function renderListenConnections({ postgres, slot, mode }) {
  setText($("listening"), count(postgres.listening));
  setText($("direct"), count(postgres.direct));
  const used = `${count(postgres.connections)} of ${count(postgres.max_connections)} connections are in use.`;
  const explanation = slot
    ? "Nothing LISTENs: a listener reads the replication slot. Direct mode takes one per worker."
    : mode === "postgres"
      ? "This is direct mode: each worker LISTENs itself."
      : "Direct mode takes one per worker.";
  const isKnown = Number.isFinite(postgres.connections);
  setText($("listen-connections-detail"), isKnown ? `${explanation} ${used}` : explanation);
}
