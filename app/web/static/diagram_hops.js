// The hops between parts of the diagram: lines that show whether events flow, with the rate and latency beside them.

import { drawShape, setText } from "./dom.js";
import { milliseconds, rate } from "./format.js";

export const MAX_LINES = 6;
export const FAN_OUT = "fan-out"; // from one part to many
export const FAN_IN = "fan-in"; // from many parts to one

const KINDS = ["flowing", "behind", "idle", "cut"]; // from best to worst
const KIND_BY_STATE = {
  up: "flowing",
  alive: "flowing",
  late: "idle",
  unknown: "idle",
  down: "cut",
  dead: "cut",
  stopped: "cut",
};

/** The worst kind of line among some kinds and some parts that have a state. */
export function worstKind(...kindsOrParts) {
  return KINDS[Math.max(...kindsOrParts.map((each) => KINDS.indexOf(KIND_BY_STATE[each.state] ?? each)))];
}

/**
 * Draws the hop that leads to a part.
 *
 * @param {Element} part
 * @param {number | null} perSecond - events; not shown if unknown
 * @param {number | null} ms - latency; not shown if unknown
 * @param {string[]} kinds - one for each line
 * @param {"fan-out" | "fan-in"} shape
 */
export function drawHop(part, perSecond, ms, kinds, shape) {
  const [rateNode, latencyNode] = part.querySelector(".hop-figures").children;
  setText(rateNode, Number.isFinite(perSecond) ? `${rate(perSecond)}/s` : "");
  setText(latencyNode, Number.isFinite(ms) ? milliseconds(ms) : "");
  const atMost = perSecond === 0 ? "idle" : "flowing";
  const lines = kinds.slice(0, MAX_LINES).map((kind) => worstKind(kind, atMost));
  const svg = part.querySelector(".hop");
  if (svg.dataset.lines === String(lines)) return;
  svg.dataset.lines = lines;
  part.dataset.hop = KINDS.find((kind) => lines.includes(kind)) ?? "cut";
  svg.replaceChildren();
  lines.forEach((kind, index) => {
    const y = ((index + 0.5) / lines.length) * 100;
    const [y1, y2] = shape === FAN_OUT ? [50, y] : [y, 50];
    drawShape(svg, "path", {
      d: `M0 ${y1}C50 ${y1} 50 ${y2} 100 ${y2}`,
      class: kind,
      "vector-effect": "non-scaling-stroke",
    });
  });
}
