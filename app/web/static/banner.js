// The one line that matters: whether events flow; and the pair of numbers that the whole is for.

import { $, element, keep, setText } from "./dom.js";
import { clock, count, milliseconds, plural } from "./format.js";

const TITLES = { healthy: "Healthy", degraded: "Degraded", broken: "Broken" };

export function renderBanner(status) {
  const { state, problems } = status;
  const title = TITLES[state] ?? String(state);
  say(title, detail(status), problems);
  document.title = `${state === "healthy" ? "✓" : "⚠"} ${title} · notifymux`;
  document.body.dataset.state = state in TITLES ? state : "unknown";
  $("embedded").hidden = !status.embedded;
  speak(state, [title, ...problems].join(". "));
}

function detail({ state, clients, workers, latency, mode }) {
  if (state === "broken")
    return "The worker that answers can't recover by itself. Restart it: supervisorctl restart app";
  if (state === "degraded")
    return "Events are held back, or not proven to flow. It recovers by itself once this is over:";
  const alive = workers.filter((worker) => worker.state === "alive").length;
  const whose = mode === "postgres" ? "the worker that answers" : plural(alive, "worker");
  const pace = Number.isFinite(latency.p50_ms) ? ` in ${milliseconds(latency.p50_ms)}` : "";
  const onwards = clients ? `, and on to ${plural(clients, "client")}` : "; no client is connected";
  return `Events flow from PostgreSQL to ${whose}${pace}${onwards}.`;
}

function say(title, text, problems) {
  setText($("state"), title);
  setText($("state-detail"), text);
  keep(
    $("problems"),
    problems,
    (_, index) => index,
    () => element("li"),
    setText,
  );
}

let spoken = "";

// Only a change of state is spoken, not every figure in what is wrong.
function speak(state, text) {
  if (spoken !== state) setText($("spoken"), text);
  spoken = state;
}

/** There is no status to show, or an old one only. */
export function renderLink({ name, reason }, last) {
  document.body.dataset.link = name;
  $("identify").hidden = name !== "refused";
  $("stale").hidden = !last || name === "live" || name === "connecting";
  if (name === "live" || name === "connecting") return;
  document.body.dataset.state = "unknown";
  const [title, text] = {
    lost: ["No connection", `Trying again: ${reason}. Whether events flow is not known here.`],
    refused: ["An operator’s token is needed", `The server says: ${reason}.`],
    off: ["No status page", "The server has it switched off: STATUS_PAGE=false."],
  }[name];
  say(title, text, []);
  if (last) setText($("stale"), `What is shown below is as of ${clock(last.at)}.`);
  document.title = `⚠ ${title} · notifymux`;
  speak(name, title);
}

export function renderPair({ postgres, mode }) {
  setText($("listening"), count(postgres.listening));
  setText($("direct"), count(postgres.direct));
  const used = `${count(postgres.connections)} of ${count(postgres.max_connections)} connections are in use.`;
  const why =
    mode === "postgres" ? "This is direct mode: each worker LISTENs itself." : "Direct mode takes one per worker.";
  setText($("pair-detail"), Number.isFinite(postgres.connections) ? `${why} ${used}` : why);
}
