// One connection for all tabs of a browser: one tab leads, which holds a lock, and a broadcast channel carries what comes
// to all. Whoever gets the lock next resumes from the lowest positions of the tabs. A visible tab takes the lead over
// from a hidden one, so that a leading tab is hidden only if all are.

import { LeadingTab } from "./leading_tab.js";
import { randomId } from "./random_id.js";
import { isHidden } from "./waking.js";

/** Whether the browser has what sharing needs: locks are there in secure contexts only. */
export function canShareTabs() {
  return Boolean(globalThis.document && globalThis.navigator?.locks && globalThis.BroadcastChannel);
}

export class Tabs {
  #options;
  #callbacks;
  #name;
  #tab = randomId();
  #channel;
  #leader = null; // the id of the tab that leads
  #leading = null; // a `LeadingTab` if it is this one
  #reports = 0; // that this tab has made
  #isListed = false; // this tab's own lock is held: others notice when it ends
  #contest = null; // the abort controller of the request for the leader's lock
  #release = () => {}; // gives the leader's lock up
  #end = new AbortController();

  /**
   * @param {object} options - those of `connect`, complete
   * @param {object} callbacks - those of `Multiplexer`, and `positions`, which returns this tab's matches and positions
   */
  constructor(options, callbacks) {
    this.#options = { ...options, clientId: this.#tab };
    this.#callbacks = callbacks;
    this.#name = `notifymux 1 ${options.base.href} ${options.shareTabs}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#receive(data);
    const { signal } = this.#end;
    document.addEventListener("visibilitychange", () => this.#ask({ type: "visible" }), { signal });
    this.#requestLock(this.#lockOf(this.#tab), { signal }, () => this.#onListed());
  }

  subscribe(match, after) {
    this.#ask({ type: "subscribe", match, after });
  }

  unsubscribe(match) {
    this.#ask({ type: "unsubscribe", match });
  }

  renew(token) {
    this.#ask({ type: "renew", token });
  }

  /** Leaves the other tabs. */
  close() {
    this.#end.abort();
    this.#contest?.abort();
    this.#leading?.close();
    this.#leading = null;
    this.#channel.close();
    this.#release();
  }

  // ---- who leads

  #lockOf(tab) {
    return `${this.#name} ${tab}`;
  }

  // Requests a lock and, when it is held, calls `hold`, which returns when to give it up.
  async #requestLock(name, options, hold) {
    try {
      await navigator.locks.request(name, options, hold);
    } catch (error) {
      if (error.name !== "AbortError") throw error; // no longer needed, or another tab took it
    }
  }

  #onListed() {
    if (this.#end.signal.aborted) return undefined;
    this.#isListed = true;
    this.#report();
    this.#contend();
    return new Promise((resolve) => this.#end.signal.addEventListener("abort", resolve));
  }

  async #contend(steal = false) {
    this.#contest?.abort();
    const contest = new AbortController();
    this.#contest = contest;
    const options = steal ? { steal } : { signal: contest.signal };
    await this.#requestLock(this.#name, options, () => this.#lead());
    if (this.#contest !== contest || this.#end.signal.aborted) return;
    this.#leading?.close(); // another tab has taken the lead
    this.#leading = null;
    this.#contend();
  }

  #lead() {
    if (this.#end.signal.aborted) return undefined;
    const tell = (message) => this.#tell({ ...message, leader: this.#tab });
    const onEnd = (tab, signal, forget) => this.#requestLock(this.#lockOf(tab), { signal }, forget);
    this.#leading?.close(); // it took the lock just before it took it over
    this.#leading = new LeadingTab(this.#options, this.#tab, tell, onEnd);
    tell({ type: "lead" });
    return new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  // ---- what the tabs tell each other

  // A channel does not carry a message back to its sender.
  #tell(message) {
    if (this.#end.signal.aborted) return;
    this.#channel.postMessage(message);
    this.#receive(message);
  }

  // Before this tab is listed, nobody would notice its end; its report follows.
  #ask(message) {
    if (this.#isListed) this.#tell({ ...message, tab: this.#tab, isVisible: !isHidden() });
  }

  #report() {
    this.#reports += 1;
    this.#ask({ type: "report", number: this.#reports, matches: this.#callbacks.positions() });
  }

  #receive(message) {
    if (message.leader) this.#hear(message);
    else this.#leading?.receive(message);
  }

  #hear({ leader, type, tab, number, message, match, state }) {
    if (type === "lead") {
      this.#leader = leader;
    } else if (tab === this.#tab && number === this.#reports && leader !== this.#leader) {
      this.#leader = leader; // it answers, whatever a message that came late says
      this.#callbacks.onLost();
    }
    if (leader !== this.#leader) return; // another one has taken its place
    if (type === "message") this.#callbacks.onMessage(message);
    else if (type === "lost") this.#callbacks.onLost(match);
    else if (type === "state") this.#callbacks.onState(state);
    else if (type === "hidden") this.#ask({ type: "visible" });
    else if (type === "take" && tab === this.#tab && !this.#leading) this.#contend(true);
    else if (type === "lead") {
      this.#callbacks.onLost(); // what the last leader received and did not tell is missing
      this.#report();
    }
  }
}
