// The ids of events, `E-S`: compared number by number, `E` first.

/**
 * Whether one id comes after another. Without one of them, nothing is known, and it counts as later.
 *
 * @param {string | null | undefined} id
 * @param {string | null | undefined} last
 */
export function isAfter(id, last) {
  if (!id || !last) return true;
  const [epoch, sequence] = id.split("-").map(Number);
  const [lastEpoch, lastSequence] = last.split("-").map(Number);
  return epoch === lastEpoch ? sequence > lastSequence : epoch > lastEpoch;
}
