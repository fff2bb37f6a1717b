// One plot of the last 15 minutes: lines over time, with a mark for each incident.

import { drawShape, element, setAttribute, setText } from "./dom.js";
import { clock, minute } from "./format.js";

export const SPAN_SECONDS = 900; // shown once there are enough points

const HEIGHT = 150;
const EDGE = { left: 46, right: 8, top: 8, bottom: 22 };
const MIN_SPAN_SECONDS = 120;
const TICK_SECONDS = [30, 60, 120, 300]; // between two labels of the time axis
const TICK_WIDTH = 80;
const ROUND_FACTORS = [1, 2, 2.5, 5, 10];

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {number} index - of the figure in a point
 * @property {string} className
 *
 * @typedef {[number, ...(number | null)[]]} Point - Unix seconds, then the figures
 * @typedef {{ at: number, kind: string, text: string }} Mark
 * @typedef {{ position: (value: number) => number, ticks: number[] }} Scale
 */

export class Plot {
  #title;
  #lines;
  #format;
  #scaleFor;
  #svg;
  #readout;
  #cursor;
  #hoverX = null; // position of the pointer
  #points = [];
  #marks = [];
  #now = 0;
  #span = SPAN_SECONDS;
  #step = 5;
  #width = 0;
  #scale;

  /**
   * @param {HTMLElement} figure - the plot is added to it
   * @param {object} options
   * @param {string} options.title
   * @param {Line[]} options.lines
   * @param {(value: number | null) => string} options.format
   * @param {(values: number[]) => Scale} options.scale - makes a scale that covers the values
   */
  constructor(figure, { title, lines, format, scale }) {
    this.#title = title;
    this.#scaleFor = scale;
    this.#lines = lines;
    this.#format = format;
    const caption = element("figcaption");
    this.#readout = element("span", "readout");
    this.#readout.append(element("span"), ...lines.map(({ className }) => element("span", `key ${className}`)));
    caption.append(element("h3", "", title), this.#readout);
    figure.append(caption);
    this.#svg = drawShape(figure, "svg", { class: "plot", role: "img", height: HEIGHT });
    this.#svg.addEventListener("pointermove", (event) => this.#showFigures(event.offsetX));
    this.#svg.addEventListener("pointerleave", () => this.#showFigures(null));
    new ResizeObserver(([entry]) => this.#resize(Math.round(entry.contentRect.width))).observe(figure);
  }

  /**
   * @param {Point[]} points - oldest first
   * @param {Mark[]} marks
   * @param {number} now - Unix seconds at the right edge
   * @param {number} step - seconds per point
   */
  draw(points, marks, now, step) {
    this.#points = points;
    this.#now = now;
    this.#span = Math.min(SPAN_SECONDS, Math.max(MIN_SPAN_SECONDS, now - (points[0]?.[0] ?? now)));
    this.#marks = marks.filter((mark) => mark.at > now - this.#span);
    this.#step = step;
    this.#render();
  }

  #resize(width) {
    if (width === this.#width) return;
    this.#width = width;
    if (this.#now) this.#render();
  }

  #x = (at) => EDGE.left + (1 - (this.#now - at) / this.#span) * (this.#width - EDGE.left - EDGE.right);
  #y = (value) => HEIGHT - EDGE.bottom - this.#scale.position(value) * (HEIGHT - EDGE.top - EDGE.bottom);

  #render() {
    if (this.#width < 100) return;
    setAttribute(this.#svg, "width", this.#width);
    const values = this.#points.flatMap((point) => this.#lines.map(({ index }) => point[index]));
    this.#scale = this.#scaleFor(values.filter(Number.isFinite));
    this.#svg.replaceChildren();
    this.#renderAxes();
    for (const mark of this.#marks) this.#renderMark(mark);
    for (const line of this.#lines) this.#renderLine(line);
    this.#cursor = drawShape(this.#svg, "path", { class: "cursor", d: "" });
    this.#showFigures(this.#hoverX);
    setAttribute(this.#svg, "aria-label", this.#summary());
  }

  #renderAxes() {
    for (const value of this.#scale.ticks) {
      const y = this.#y(value);
      drawShape(this.#svg, "path", { class: "grid", d: `M${EDGE.left} ${y}H${this.#width - EDGE.right}` });
      drawShape(this.#svg, "text", { class: "label value", x: EDGE.left - 6, y: y + 4 }, this.#format(value));
    }
    const step = TICK_SECONDS.find((each) => this.#span / each <= this.#width / TICK_WIDTH) ?? TICK_SECONDS.at(-1);
    for (let at = Math.ceil((this.#now - this.#span) / step) * step; at <= this.#now; at += step) {
      const x = Math.min(Math.max(this.#x(at), EDGE.left + 26), this.#width - EDGE.right - 26);
      drawShape(this.#svg, "text", { class: "label time", x, y: HEIGHT - 5 }, step < 60 ? clock(at) : minute(at));
    }
  }

  #renderMark({ at, kind, text }) {
    const node = drawShape(this.#svg, "path", {
      class: "mark",
      "data-kind": kind,
      d: `M${this.#x(at)} ${EDGE.top}V${HEIGHT - EDGE.bottom}`,
    });
    drawShape(node, "title", {}, `${clock(at)} ${kind}: ${text}`);
  }

  #renderLine({ index, className }) {
    const runs = this.#runs(index).map((run) => {
      const positions = run.map(([at, value]) => `${this.#x(at).toFixed(1)} ${this.#y(value).toFixed(1)}`);
      return `M${positions.join("L")}${positions.length === 1 ? "h.01" : ""}`; // a single point is drawn as a dot
    });
    drawShape(this.#svg, "path", { class: `line ${className}`, d: runs.join("") });
  }

  /** Groups the points into runs of consecutive points. */
  #runs(index) {
    const runs = [];
    let last = -Infinity;
    for (const point of this.#points) {
      if (!Number.isFinite(point[index]) || point[0] < this.#now - this.#span) continue;
      if (point[0] - last > 1.5 * this.#step) runs.push([]);
      runs.at(-1).push([point[0], point[index]]);
      [last] = point;
    }
    return runs;
  }

  /** Shows the figures at a position of the pointer, or the latest figures if it is null. */
  #showFigures(x) {
    this.#hoverX = x;
    const points = this.#points;
    if (!points.length) return;
    const at =
      x === null ? Infinity : this.#now - (1 - (x - EDGE.left) / (this.#width - EDGE.left - EDGE.right)) * this.#span;
    const nearest = points.reduce((best, point) => (Math.abs(point[0] - at) <= Math.abs(best[0] - at) ? point : best));
    const point = x === null ? points.at(-1) : nearest;
    setAttribute(this.#cursor, "d", x === null ? "" : `M${this.#x(point[0])} ${EDGE.top}V${HEIGHT - EDGE.bottom}`);
    const [when, ...figures] = this.#readout.children;
    setText(when, x === null ? "" : clock(point[0]));
    this.#lines.forEach(({ name, index }, at) => setText(figures[at], `${name} ${this.#format(point[index])}`.trim()));
  }

  #summary() {
    const parts = this.#lines.map(({ name, index }) => {
      const values = this.#points.map((point) => point[index]).filter(Number.isFinite);
      if (!values.length) return `${name} not measured`;
      const [last, min, max] = [values.at(-1), Math.min(...values), Math.max(...values)].map(this.#format);
      return `${name} last ${last}, min ${min}, max ${max}`.trim();
    });
    return `${this.#title} in the last 15 minutes: ${parts.join("; ")}. The table below has the figures.`;
  }
}

// ---- scales: the position of a value, from 0 at the bottom to 1 at the top, and the values of the axis labels

/** A scale from 0 to the next round number at or above the largest value. */
export function linear(values) {
  const max = Math.max(...values, 1);
  const power = 10 ** Math.floor(Math.log10(max));
  const top = ROUND_FACTORS.find((factor) => factor * power >= max) * power;
  return { position: (value) => value / top, ticks: [0, top / 2, top] };
}

/** A logarithmic scale between two powers of ten. */
export function logarithmic(values) {
  const positive = values.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(...positive, 1)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(...positive, 1))), low + 1);
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  return { position: (value) => Math.max(0, Math.log10(value) - low) / (high - low), ticks };
}
