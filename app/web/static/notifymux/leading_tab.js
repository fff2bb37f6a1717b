// The tab that leads has the connection of all tabs: it subscribes what they ask for, and tells them what comes.

import { matchKey } from "./match_ids.js";
import { Multiplexer } from "./multiplexer.js";
import { isHidden } from "./waking.js";

export class LeadingTab {
  #tab;
  #tell;
  #onEnd;
  #multiplexer;
  #tabs = new Map(); // by a tab's id its matches, by `matchKey`
  #state = { name: "connecting", attempt: 0 };
  #successor = null; // the visible tab that was offered the lead, while this one is hidden
  #abortController = new AbortController();

  /**
   * @param {object} options - those of `connect`, complete
   * @param {string} tab - this tab's id
   * @param {(message: object) => void} tell - tells all tabs, this one included
   * @param {(tab: string, signal: AbortSignal, forget: () => void) => void} onEnd - calls `forget` when a tab has ended
   */
  constructor(options, tab, tell, onEnd) {
    this.#tab = tab;
    this.#tell = tell;
    this.#onEnd = onEnd;
    this.#multiplexer = new Multiplexer(options, {
      onMessage: (message) => tell({ type: "message", message }),
      onLost: (match) => tell({ type: "lost", match }),
      onState: (state) => this.#onState(state),
    });
    const { signal } = this.#abortController;
    document.addEventListener("visibilitychange", () => isHidden() && tell({ type: "hidden" }), { signal });
  }

  /** Handles what a tab asks for. */
  receive({ type, tab, match, after, matches, number, token, isVisible }) {
    if (type === "report") this.#onReport(tab, number, matches);
    else if (type === "subscribe") this.#subscribe(tab, match, after);
    else if (type === "unsubscribe") this.#unsubscribe(tab, match);
    else if (type === "renew") this.#multiplexer.renew(token);
    if (isVisible) this.#offerLead(tab);
  }

  /** Another tab leads, or this one closes. */
  close() {
    this.#abortController.abort();
    this.#multiplexer.close();
  }

  #onState(state) {
    this.#state = state;
    this.#tell({ type: "state", state });
  }

  #onReport(tab, number, matches) {
    this.#tell({ type: "state", state: this.#state, tab, number }); // first: only then does the tab listen to this one
    const reported = new Set(matches.map(([match]) => matchKey(match)));
    for (const [key, match] of this.#matchesOf(tab)) if (!reported.has(key)) this.#unsubscribe(tab, match);
    for (const [match, after] of matches) this.#subscribe(tab, match, after);
  }

  #subscribe(tab, match, after) {
    this.#matchesOf(tab).set(matchKey(match), match);
    this.#multiplexer.subscribe(match, after);
  }

  #unsubscribe(tab, match) {
    const key = matchKey(match);
    this.#matchesOf(tab).delete(key);
    for (const matches of this.#tabs.values()) if (matches.has(key)) return;
    this.#multiplexer.unsubscribe(match);
  }

  #matchesOf(tab) {
    if (!this.#tabs.has(tab)) {
      this.#tabs.set(tab, new Map());
      if (tab !== this.#tab) this.#onEnd(tab, this.#abortController.signal, () => this.#forget(tab));
    }
    return this.#tabs.get(tab);
  }

  #forget(tab) {
    if (this.#successor === tab) this.#successor = null;
    for (const match of this.#tabs.get(tab).values()) this.#unsubscribe(tab, match);
    this.#tabs.delete(tab);
  }

  // The successor takes the lead itself: until then, and if it ends before, this tab leads.
  #offerLead(tab) {
    if (!isHidden() || this.#successor !== null || tab === this.#tab) return;
    this.#matchesOf(tab); // so that its end is noticed
    this.#successor = tab;
    this.#tell({ type: "take", tab });
  }
}
