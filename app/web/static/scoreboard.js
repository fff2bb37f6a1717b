// The state of a match and its text on the scoreboard. Pure: no DOM, no clock, no network.

export const EMPTY = Object.freeze({
  match: null,
  matchdata: null,
  scoreboard: null,
  gameclock: null,
  playclock: null,
  events: [], // newest first
  players: [],
  lastId: null,
  loaded: false, // a message has been received
  updates: 0,
  resyncs: 0, // announced gaps
  note: "", // a limitation of the data shown, for people
});

const MAX_EVENTS = 10;
const ROW_BY_CHANNEL = {
  match_change: "match",
  matchdata_change: "matchdata",
  scoreboard_change: "scoreboard",
  gameclock_change: "gameclock",
  playclock_change: "playclock",
};
const LIST_BY_CHANNEL = { football_event_change: "events", player_match_change: "players" };

export function apply(state, message) {
  if (message.type === "initial-load" || message.type === "resync") return load(state, message);
  if (!("operation" in message)) return state;
  const next = { ...state, updates: state.updates + 1, lastId: message.id ?? state.lastId };
  const row = message.data ?? message.gameclock ?? message.playclock ?? null;
  const rowKey = ROW_BY_CHANNEL[message.channel];
  const listKey = LIST_BY_CHANNEL[message.channel];
  if (rowKey) {
    if (message.operation === "DELETE") next[rowKey] = null;
    else if (row) next[rowKey] = { ...state[rowKey], ...row };
  } else if (listKey && row) {
    const others = state[listKey].filter((each) => each.id !== row.id);
    next[listKey] = message.operation === "DELETE" ? others : [row, ...others];
    if (listKey === "events") next.events = newest(next.events);
  }
  if ((rowKey || listKey) && !row && message.operation !== "DELETE") {
    next.note = "A row was too large for a notification, so its previous state is shown.";
  }
  return next;
}

function load(state, message) {
  const next = { ...state, loaded: true, lastId: message.id ?? null };
  if (message.type === "resync") next.resyncs += 1;
  if (message.recovered) return next;
  const data = message.data;
  if (!data) {
    next.note = message.error
      ? `No snapshot (${message.error}). The page fills in as changes arrive.`
      : "This server sends no snapshot. The page fills in as changes arrive.";
    return next;
  }
  for (const key of Object.values(ROW_BY_CHANNEL)) next[key] = data[key] ?? null;
  next.events = newest(data.events ?? []);
  next.players = data.players ?? [];
  next.note = next.match ? "" : `Match ${message.match_id} does not exist yet.`;
  return next;
}

function newest(events) {
  return [...events].sort((a, b) => b.id - a.id).slice(0, MAX_EVENTS);
}

// ---- text

export function abbr(match, side) {
  return match?.[`${side}_abbr`] || (side === "home" ? "HOME" : "AWAY");
}

export function clockText(seconds) {
  if (!Number.isFinite(seconds)) return "–:––";
  const whole = Math.max(0, Math.ceil(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export function ordinal(n) {
  return `${n}${["th", "st", "nd", "rd"][n] ?? "th"}`;
}

export function quarterText({ match, matchdata }) {
  const status = String(match?.status ?? "").replaceAll("_", " ");
  if (status && !/progress|live|playing|running/i.test(status)) return status;
  const quarter = matchdata?.quarter;
  if (!quarter) return "–";
  return quarter > 4 ? "Overtime" : `${ordinal(quarter)} quarter`;
}

// The positions on the field in yards from the home goal line; null if the position of the ball is unknown.
export function field({ matchdata }) {
  if (!Number.isFinite(matchdata?.yardline)) return null;
  const ball = Math.min(100, Math.max(0, matchdata.yardline));
  const side = matchdata.possession;
  const direction = side === "home" ? 1 : side === "away" ? -1 : 0;
  const { down, distance } = matchdata;
  const inPlay = direction !== 0 && down >= 1 && Number.isFinite(distance);
  const target = ball + direction * distance;
  const toGoal = inPlay && (target >= 100 || target <= 0);
  return { ball, direction, inPlay, toGoal, firstDown: inPlay && !toGoal ? target : null };
}

export function spotText(match, yards) {
  if (yards === 50) return "the 50";
  return yards < 50 ? `${abbr(match, "home")} ${yards}` : `${abbr(match, "away")} ${100 - yards}`;
}

export function downText(state) {
  const spot = field(state);
  if (!spot) return "–";
  const at = spotText(state.match, spot.ball);
  if (!spot.inPlay) return `Ball on ${at}`;
  const { down, distance } = state.matchdata;
  return `${ordinal(down)} & ${spot.toGoal ? "goal" : distance} at ${at}`;
}

export function topPlayers(players, count) {
  const descending = (key) => (a, b) => (b[key] ?? 0) - (a[key] ?? 0);
  const [byYards, byTouchdowns] = [descending("yards"), descending("touchdowns")];
  return [...players].sort((a, b) => byYards(a, b) || byTouchdowns(a, b) || a.id - b.id).slice(0, count);
}
