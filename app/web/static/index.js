// The status page: what /api/status/events says, as it says it.

import { renderBanner, renderLink, renderPair } from "./banner.js";
import { $, setText } from "./dom.js";
import { renderHistory } from "./time_series.js";
import { renderLedger } from "./incident_log.js";
import { renderPipe } from "./diagram.js";
import { renderProcesses } from "./processes.js";
import { StatusStream } from "./status_stream.js";
import { renderTail, startTail } from "./recent_events.js";

const TOKEN = "notifymux-operator-token";

let last = null;

function render(message, isFirst) {
  const status = asKnown(message);
  last = status;
  $("pair").hidden = $("parts").hidden = false;
  renderBanner(status);
  renderPair(status);
  renderPipe(status);
  renderHistory(status, isFirst);
  renderProcesses(status);
  renderLedger(status);
  renderTail(status);
  const { version, namespace, worker, mode } = status;
  const how = mode === "postgres" ? "PostgreSQL mode" : `Redis mode, namespace ${namespace}`;
  setText($("about"), `notifymux ${version} · ${how} · answered by worker ${worker.pod}/${worker.pid}`);
}

/** While Redis is away, how the others are is not known: they are seen through it. */
function asKnown(status) {
  if (status.redis.state !== "down") return status;
  const { pod, pid } = status.worker;
  const unknown = (each) => ({ ...each, state: "unknown" });
  const workers = status.workers.map((each) => (each.pod === pod && each.pid === pid ? each : unknown(each)));
  return { ...status, workers, listeners: status.listeners.map(unknown) };
}

/** The token from the address, which then no longer shows it, or from before a reload. */
function givenToken() {
  const url = new URL(location.href);
  const token = url.searchParams.get("token");
  if (token === null) return sessionStorage.getItem(TOKEN);
  url.searchParams.delete("token");
  history.replaceState(null, "", url);
  sessionStorage.setItem(TOKEN, token);
  return token;
}

const stream = new StatusStream({
  token: givenToken(),
  heard: render,
  changed: (link) => renderLink(link, last),
});

startTail((channel, match) => stream.filter(channel, match));

$("identify").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  sessionStorage.setItem(TOKEN, token);
  stream.identify(token);
});
