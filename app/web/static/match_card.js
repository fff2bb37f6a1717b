// One match among several: a small scoreboard, with a button that has the match removed or added again.

import { showClock, showTeam } from "./board.js";
import { $, setAttribute, setText } from "./dom.js";
import { plural } from "./format.js";
import { EMPTY, apply, downText, quarterText } from "./scoreboard.js";

export class MatchCard {
  #match;
  #node = $("card").content.firstElementChild.cloneNode(true);
  #state = EMPTY;
  #messages = 0;
  #isStarted = false; // since the match was added

  /**
   * @param {number} match
   * @param {string} href - the page of this match alone
   * @param {() => void} onToggle - removes the match, or adds it
   */
  constructor(match, href, onToggle) {
    this.#match = match;
    setText(this.#part(".link"), `Match ${match}`);
    this.#part(".link").href = href;
    this.#part("button").addEventListener("click", onToggle);
    $("matches").append(this.#node);
  }

  get isStarted() {
    return this.#isStarted;
  }

  get resyncs() {
    return this.#state.resyncs;
  }

  get messages() {
    return this.#messages;
  }

  receive(message) {
    this.#messages += 1;
    this.#state = apply(this.#state, message);
    if (message.type === "initial-load") this.#isStarted = true;
    if (message.type === "refused") this.#refuse(message);
  }

  /** The match is removed: the card stands still until it is added again, which starts it over. */
  stop() {
    this.#isStarted = false;
  }

  #refuse({ reason }) {
    this.stop();
    this.#state = { ...this.#state, note: `Refused: ${reason}.` };
  }

  /**
   * @param {boolean} isThere - the connection has the match
   * @param {boolean} isFinal - the connection is closed for good
   */
  render(isThere, isFinal) {
    const state = this.#state;
    setText(this.#part(".quarter"), quarterText(state));
    showClock(this.#part(".clock"), state.gameclock);
    for (const side of ["home", "away"]) showTeam(this.#part(`.side.${side}`), side, state);
    setText(this.#part(".down"), downText(state));
    setText(this.#part(".match-note"), state.note);
    this.#part(".match-note").hidden = !state.note;
    setText(this.#part(".messages"), plural(this.#messages, "message"));
    this.#part(".removed-text").hidden = isThere || isFinal;
    this.#node.classList.toggle("removed", !isThere);
    const button = this.#part("button");
    setText(button, isThere ? "Remove" : "Add");
    setAttribute(button, "aria-label", `${button.textContent} match ${this.#match}`);
    button.hidden = isFinal;
  }

  #part(selector) {
    return this.#node.querySelector(selector);
  }
}
