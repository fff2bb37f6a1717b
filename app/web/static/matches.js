// The demo page of several matches over one connection. Everything from a payload is set as text.

import { refusalText, showConnectionState, showIdle, showStart } from "./connection_label.js";
import { $, setText } from "./dom.js";
import { count } from "./format.js";
import { MatchCard } from "./match_card.js";
import { connect } from "./notifymux.js";

const MATCHES = [1, 2, 3, 4, 5, 6]; // the demo's
const FINAL_STATES = ["refused", "replaced", "closed"];

const token = new URLSearchParams(location.search).get("token") ?? undefined;
const connection = connect({ matches: MATCHES, token });
const cards = new Map(MATCHES.map((match) => [match, new MatchCard(match, pageOf(match), () => toggle(match))]));
let animationFrame = 0;

function pageOf(match) {
  return `../demo?${new URLSearchParams({ match, ...(token && { token }) })}`;
}

function toggle(match) {
  if (connection.matches.includes(match)) {
    connection.remove(match);
    cards.get(match).stop();
  } else {
    connection.add(match);
  }
  onState(connection.state);
}

function onMessage(message) {
  const card = cards.get(message.match_id);
  if (!card) return;
  const wasStarted = card.isStarted;
  card.receive(message);
  showStart(message, wasStarted);
  renderSoon();
}

function onState(state) {
  if (state.name === "connecting" && connection.matches.length === 0) showIdle();
  else showConnectionState(state);
  const refusal = refusalText(state);
  setText($("note"), refusal);
  $("note").hidden = !refusal;
  renderSoon();
}

function renderSoon() {
  animationFrame ||= requestAnimationFrame(render);
}

function render() {
  animationFrame = 0;
  const isFinal = FINAL_STATES.includes(connection.state.name);
  const sum = (key) => [...cards.values()].reduce((total, card) => total + card[key], 0);
  for (const [match, card] of cards) card.render(connection.matches.includes(match), isFinal);
  setText($("count"), connection.matches.length);
  setText($("messages"), count(sum("messages")));
  setText($("resyncs"), sum("resyncs"));
}

connection.on("*", onMessage);
connection.onState(onState);
