// The world of a schedule: time that passes only when it is told to, and random numbers that a seed decides.

export function seededRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class VirtualTime {
  #now = 1_800_000_000_000;
  #timers = new Map();
  #last = 0;

  /** Replaces the clock, the timers and the random numbers of this process. */
  install(random) {
    Date.now = () => this.#now;
    Math.random = random;
    globalThis.setTimeout = (callback, delay = 0) => this.#add(callback, delay);
    globalThis.setInterval = (callback, delay) => this.#add(callback, delay, delay);
    globalThis.clearTimeout = globalThis.clearInterval = (timer) => this.#timers.delete(timer);
  }

  #add(callback, delay, interval = null) {
    this.#last += 1;
    this.#timers.set(this.#last, { at: this.#now + delay, callback, interval });
    return this.#last;
  }

  /** Lets time pass until the next timer is due, if there is one, and calls it. */
  next() {
    if (this.#timers.size === 0) return;
    const [id, timer] = [...this.#timers].reduce((first, each) => (each[1].at < first[1].at ? each : first));
    this.#now = Math.max(this.#now, timer.at);
    if (timer.interval === null) this.#timers.delete(id);
    else timer.at += timer.interval;
    timer.callback();
  }

  get timers() {
    return this.#timers.size;
  }
}

/** Lets everything run that is due at once: promises, and the parts of a stream. */
export async function settle() {
  for (let turn = 0; turn < 4; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
