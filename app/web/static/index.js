// The status page: shows the messages of /api/status/events.

import { renderBanner, renderConnection, renderListenConnections } from "./banner.js";
import { renderDiagram } from "./diagram.js";
import { $, setText } from "./dom.js";
import { renderIncidentLog } from "./incident_log.js";
import { renderProcesses } from "./processes.js";
import { renderRecentEvents, startRecentEvents } from "./recent_events.js";
import { StatusStream } from "./status_stream.js";
import { renderTimeSeries } from "./time_series.js";

const TOKEN_KEY = "notifymux-operator-token"; // in the session storage

let lastStatus = null;

function render(message, isFirst) {
  const status = withUnknownStates(message);
  lastStatus = status;
  $("listen-connections").hidden = $("parts").hidden = false;
  renderBanner(status);
  renderListenConnections(status);
  renderDiagram(status);
  renderTimeSeries(status, isFirst);
  renderProcesses(status);
  renderIncidentLog(status);
  renderRecentEvents(status);
  const { version, namespace, worker, mode } = status;
  const modeText = mode === "postgres" ? "PostgreSQL mode" : `Redis mode, namespace ${namespace}`;
  setText($("about"), `notifymux ${version} · ${modeText} · served by worker ${worker.pod}/${worker.pid}`);
}

/** While Redis is down, the state of every other process is unknown, because the worker reads it from Redis. */
function withUnknownStates(status) {
  if (status.redis.state !== "down") return status;
  const unknown = (each) => ({ ...each, state: "unknown" });
  const workers = status.workers.map((each) => (each.uid === status.worker.uid ? each : unknown(each)));
  return { ...status, workers, listeners: status.listeners.map(unknown) };
}

/** Moves the token from the URL to the session storage, so that it survives a reload and is no longer displayed. */
function loadToken() {
  const url = new URL(location.href);
  const token = url.searchParams.get("token");
  if (token === null) return sessionStorage.getItem(TOKEN_KEY);
  url.searchParams.delete("token");
  history.replaceState(null, "", url);
  sessionStorage.setItem(TOKEN_KEY, token);
  return token;
}

const stream = new StatusStream({
  token: loadToken(),
  onStatus: render,
  onConnection: (connection) => renderConnection(connection, lastStatus),
});

startRecentEvents((channel, match) => stream.setFilter(channel, match));

$("identify").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  sessionStorage.setItem(TOKEN_KEY, token);
  stream.setToken(token);
});
