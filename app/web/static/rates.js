// How fast counters grow, over the last seconds. Pure: the time is given.

const OVER = 5; // seconds

export class Rates {
  #seen = new Map(); // by counter: [at, value], the oldest first

  /**
   * Notes what a counter shows.
   *
   * @param {string} name
   * @param {number} value - it only grows; one that shrinks began anew
   * @param {number} at - Unix seconds
   * @returns {number | null} its growth a second; null if that is not known yet
   */
  note(name, value, at) {
    if (!Number.isFinite(value)) return null;
    const seen = this.#seen.get(name) ?? [];
    if (seen.length && (value < seen.at(-1)[1] || at < seen.at(-1)[0])) seen.length = 0;
    seen.push([at, value]);
    while (seen.length > 2 && seen[0][0] < at - OVER) seen.shift();
    this.#seen.set(name, seen);
    const [since, before] = seen[0];
    return at > since ? (value - before) / (at - since) : null;
  }

  /** Forgets the counters that nobody has noted lately. */
  forget(at) {
    for (const [name, seen] of this.#seen) if (seen.at(-1)[0] < at - 2 * OVER) this.#seen.delete(name);
  }
}
