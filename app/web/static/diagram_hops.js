// The ways between the pipe's parts: lines that show whether something flows, with the rate and latency beside them.

import { drawShape, setText } from "./dom.js";
import { milliseconds, rate } from "./format.js";

export const MOST_LINES = 6;
export const FAN = "fan"; // from one to many
export const GATHER = "gather"; // from many to one

const KINDS = ["flows", "behind", "still", "cut"]; // the worse, the later
const BY_STATE = {
  up: "flows",
  alive: "flows",
  late: "still",
  unknown: "still",
  down: "cut",
  dead: "cut",
  stopped: "cut",
};

/** The kind of a line that needs all of these: kinds, and parts that have a state. */
export function worst(...needed) {
  return KINDS[Math.max(...needed.map((each) => KINDS.indexOf(BY_STATE[each.state] ?? each)))];
}

/**
 * Draws the way that leads to a part.
 *
 * @param {Element} part
 * @param {number | null} perSecond - nothing is written if it is not known
 * @param {number | null} ms - the same
 * @param {string[]} kinds - of each line
 * @param {"fan" | "gather"} shape
 */
export function drawWay(part, perSecond, ms, kinds, shape) {
  const [rateNode, timeNode] = part.querySelector(".hop-figures").children;
  setText(rateNode, Number.isFinite(perSecond) ? `${rate(perSecond)}/s` : "");
  setText(timeNode, Number.isFinite(ms) ? milliseconds(ms) : "");
  const idle = perSecond === 0 ? "still" : "flows";
  const lines = kinds.slice(0, MOST_LINES).map((kind) => worst(kind, idle));
  const hop = part.querySelector(".hop");
  if (hop.dataset.lines === String(lines)) return;
  hop.dataset.lines = lines;
  part.dataset.way = KINDS.find((kind) => lines.includes(kind)) ?? "cut";
  hop.replaceChildren();
  lines.forEach((kind, index) => {
    const y = ((index + 0.5) / lines.length) * 100;
    const [y1, y2] = shape === FAN ? [50, y] : [y, 50];
    drawShape(hop, "path", {
      d: `M0 ${y1}C50 ${y1} 50 ${y2} 100 ${y2}`,
      class: kind,
      "vector-effect": "non-scaling-stroke",
    });
  });
}
