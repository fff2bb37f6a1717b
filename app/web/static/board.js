// The parts of a scoreboard that the board of one match and the cards of several have. Everything is set as text.

import { setText } from "./dom.js";
import { abbr, clockText } from "./scoreboard.js";

/**
 * Shows a team in a node with the parts `.abbr`, `.name`, `.in-possession` and `.score`.
 *
 * @param {Element} node
 * @param {"home" | "away"} side
 * @param {object} state - the match's
 */
export function showTeam(node, side, { match, matchdata, scoreboard }) {
  const part = (name) => node.querySelector(`.${name}`);
  const hasBall = matchdata?.possession === side;
  node.classList.toggle("possession", hasBall);
  setText(part("abbr"), abbr(match, side));
  setText(part("name"), match?.[side]);
  setText(part("in-possession"), hasBall ? ", in possession" : "");
  showScore(part("score"), scoreboard?.[`${side}_score`]);
}

function showScore(node, points) {
  const before = node.textContent;
  setText(node, points ?? "–");
  if (Number(node.textContent) > Number(before)) animateScore(node);
}

function animateScore(node) {
  node.classList.remove("scored");
  void node.getBoundingClientRect(); // restarts the animation
  node.classList.add("scored");
}

export function showClock(node, clock) {
  setText(node, clockText(clock?.seconds));
  node.classList.toggle("stopped", clock?.running === false);
}
