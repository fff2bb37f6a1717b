// The demo page: shows the events of one match on a scoreboard. Everything from a payload is set as text.

import { showClock, showTeam } from "./board.js";
import { refusalText, showConnectionState, showStart } from "./connection_label.js";
import { $, element, setText } from "./dom.js";
import { drawField } from "./field.js";
import { connect } from "./notifymux.js";
import { EMPTY, abbr, apply, clockText, downText, quarterText, topPlayers } from "./scoreboard.js";

const RATE_WINDOW_SECONDS = 5;
const TIMEOUTS = 3; // of a team in each half
const MAX_PLAYERS = 10;

// ---- the match

const query = new URLSearchParams(location.search);
const matchId = query.get("match") || "1";
const renderField = drawField($("field"));
let state = EMPTY;
let renderedState = null;
let animationFrame = 0;

function changed(...keys) {
  return renderedState === null || keys.some((key) => state[key] !== renderedState[key]);
}

function render() {
  animationFrame = 0;
  if (changed("match", "matchdata", "scoreboard")) renderTeams();
  if (changed("match", "matchdata")) {
    setText($("down"), downText(state));
    setText($("drive"), state.matchdata?.drive_text);
    setText($("quarter"), quarterText(state));
    renderField(state);
  }
  if (changed("gameclock", "playclock")) renderClocks();
  if (changed("match", "events")) renderEvents();
  if (changed("match", "players")) renderPlayers();
  setText($("note"), state.note);
  $("note").hidden = !state.note;
  setText($("last-id"), state.lastId ?? (state.loaded ? "none in this mode" : "–"));
  setText($("resyncs"), state.resyncs);
  renderedState = state;
}

function renderTeams() {
  const { match, matchdata, scoreboard } = state;
  for (const side of ["home", "away"]) {
    showTeam($(side), side, state);
    const left = scoreboard?.[`${side}_timeouts`];
    setText($(`${side}-timeouts-text`), left == null ? "" : `${left} of ${TIMEOUTS} timeouts left`);
    [...$(`${side}-timeouts`).children].forEach((pip, i) => pip.classList.toggle("used", i >= (left ?? 0)));
  }
  const score = `${scoreboard?.home_score ?? "–"} – ${scoreboard?.away_score ?? "–"}`;
  const title = match ? `${abbr(match, "home")} ${score} ${abbr(match, "away")}` : `Match ${matchId}`;
  setText($("match"), match?.name ?? (match ? `${match.home} – ${match.away}` : `Match ${matchId}`));
  setText($("week"), match?.week == null ? "" : `Week ${match.week}`);
  document.title = `${title} · notifymux`;
  if (scoreboard) {
    const [home, away] = [match?.home ?? "Home", match?.away ?? "Away"];
    setText($("score-announcement"), `${home} ${scoreboard.home_score}, ${away} ${scoreboard.away_score}`);
  }
}

function renderClocks() {
  const { gameclock, playclock } = state;
  showClock($("gameclock"), gameclock);
  const seconds = playclock?.seconds;
  setText($("playclock"), Number.isFinite(seconds) ? String(Math.max(0, Math.ceil(seconds))).padStart(2, "0") : "––");
  $("playclock").classList.toggle("stopped", playclock?.running === false);
  $("playclock").classList.toggle("short", playclock?.running !== false && seconds <= 5);
}

function sideOf(team) {
  return team === "home" || team === "away" ? team : "";
}

function teamTag(name, team) {
  return element(name, `tag ${sideOf(team)}`, sideOf(team) ? abbr(state.match, team) : (team ?? ""));
}

function renderEvents() {
  const items = state.events.map((event) => {
    const item = element("li", /touchdown|goal|safety|conversion|extra/i.test(event.kind) ? "big" : "");
    const time = Number.isFinite(event.clock) ? clockText(event.clock) : event.clock;
    const when = element("span", "when", [event.quarter > 4 ? "OT" : `Q${event.quarter ?? "–"}`, time].join(" "));
    const what = element("span", "what", event.text ?? event.kind);
    item.append(when, teamTag("span", event.team), what);
    return item;
  });
  $("events").replaceChildren(...items);
  $("no-events").hidden = items.length > 0;
}

function renderPlayers() {
  const rows = topPlayers(state.players, MAX_PLAYERS).map((player) => {
    const row = element("tr");
    const name = element("th", "", player.name);
    name.scope = "row";
    const team = element("td");
    team.append(teamTag("span", player.team));
    row.append(element("td", "figure", player.number), name, team, element("td", "", player.position));
    row.append(element("td", "figure", player.yards), element("td", "figure", player.touchdowns));
    return row;
  });
  $("players").replaceChildren(...rows);
  $("no-players").hidden = rows.length > 0;
}

// ---- the connection

function onState(connectionState) {
  showConnectionState(connectionState);
  const refusal = refusalText(connectionState);
  if (!refusal) return;
  state = { ...state, note: refusal };
  animationFrame ||= requestAnimationFrame(render);
}

const updatesPerSecond = [0]; // newest first; the first is incomplete
setInterval(() => {
  const counted = updatesPerSecond.slice(0, RATE_WINDOW_SECONDS);
  const rate = counted.reduce((sum, n) => sum + n, 0) / counted.length;
  setText($("rate"), rate.toFixed(rate < 10 ? 1 : 0));
  updatesPerSecond.unshift(0);
  updatesPerSecond.length = Math.min(updatesPerSecond.length, RATE_WINDOW_SECONDS);
}, 1000);

function onMessage(message) {
  const before = state;
  state = apply(state, message);
  updatesPerSecond[0] += state.updates - before.updates;
  showStart(message, before.loaded);
  animationFrame ||= requestAnimationFrame(render);
}

render();
const token = query.get("token") ?? undefined;
if (token) $("all-matches").search = new URLSearchParams({ token });
const connection = connect({ match: matchId, token });
connection.on("*", onMessage);
connection.onState(onState);
