// The growth rates of counters over the last seconds. Has no clock: callers pass the time.

const WINDOW_SECONDS = 5;

export class Rates {
  #samples = new Map(); // by counter: [at, value], oldest first

  /**
   * Adds the current value of a counter.
   *
   * @param {string} name
   * @param {number} value - a counter that shrank was reset
   * @param {number} at - Unix seconds
   * @returns {number | null} growth per second; null if not known yet
   */
  add(name, value, at) {
    if (!Number.isFinite(value)) return null;
    const samples = this.#samples.get(name) ?? [];
    if (samples.length && (value < samples.at(-1)[1] || at < samples.at(-1)[0])) samples.length = 0;
    samples.push([at, value]);
    while (samples.length > 2 && samples[0][0] < at - WINDOW_SECONDS) samples.shift();
    this.#samples.set(name, samples);
    const [firstAt, firstValue] = samples[0];
    return at > firstAt ? (value - firstValue) / (at - firstAt) : null;
  }

  /** Removes counters without a recent sample. */
  removeStale(at) {
    for (const [name, samples] of this.#samples)
      if (samples.at(-1)[0] < at - 2 * WINDOW_SECONDS) this.#samples.delete(name);
  }
}
