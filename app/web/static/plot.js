// One plot of the last quarter of an hour: lines over time, with marks where something happened.

import { drawShape, element, setAttribute, setText } from "./dom.js";
import { clock, minute } from "./format.js";

export const SPAN = 900; // seconds, once there is so much to show

const HEIGHT = 150;
const EDGE = { left: 46, right: 8, top: 8, bottom: 22 };
const LEAST_SPAN = 120;
const TICKS = [30, 60, 120, 300]; // seconds between two times of the axis
const TICK_WIDTH = 80;
const STEPS = [1, 2, 2.5, 5, 10];

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {number} index - which figure of a point
 * @property {string} className
 *
 * @typedef {[number, ...(number | null)[]]} Point - when, and the figures
 * @typedef {{ at: number, kind: string, text: string }} Mark
 * @typedef {{ place: (value: number) => number, ticks: number[] }} Scale
 */

export class Plot {
  #title;
  #lines;
  #format;
  #scaleFor;
  #svg;
  #readout;
  #cursor;
  #hovered = null; // where the pointer is
  #points = [];
  #marks = [];
  #now = 0;
  #span = SPAN;
  #step = 5;
  #width = 0;
  #scale;

  /**
   * @param {HTMLElement} figure - takes the plot
   * @param {object} options
   * @param {string} options.title
   * @param {Line[]} options.lines
   * @param {(value: number | null) => string} options.format
   * @param {(values: number[]) => Scale} options.scale - that holds these values
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
    this.#svg.addEventListener("pointermove", (event) => this.#point(event.offsetX));
    this.#svg.addEventListener("pointerleave", () => this.#point(null));
    new ResizeObserver(([entry]) => this.#resize(Math.round(entry.contentRect.width))).observe(figure);
  }

  /**
   * @param {Point[]} points - the oldest first
   * @param {Mark[]} marks
   * @param {number} now - Unix seconds: the right edge
   * @param {number} step - seconds that a point stands for
   */
  draw(points, marks, now, step) {
    this.#points = points;
    this.#now = now;
    this.#span = Math.min(SPAN, Math.max(LEAST_SPAN, now - (points[0]?.[0] ?? now)));
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
  #y = (value) => HEIGHT - EDGE.bottom - this.#scale.place(value) * (HEIGHT - EDGE.top - EDGE.bottom);

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
    this.#point(this.#hovered);
    setAttribute(this.#svg, "aria-label", this.#summary());
  }

  #renderAxes() {
    for (const value of this.#scale.ticks) {
      const y = this.#y(value);
      drawShape(this.#svg, "path", { class: "grid", d: `M${EDGE.left} ${y}H${this.#width - EDGE.right}` });
      drawShape(this.#svg, "text", { class: "label value", x: EDGE.left - 6, y: y + 4 }, this.#format(value));
    }
    const step = TICKS.find((each) => this.#span / each <= this.#width / TICK_WIDTH) ?? TICKS.at(-1);
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
      const places = run.map(([at, value]) => `${this.#x(at).toFixed(1)} ${this.#y(value).toFixed(1)}`);
      return `M${places.join("L")}${places.length === 1 ? "h.01" : ""}`; // a point alone is a dot
    });
    drawShape(this.#svg, "path", { class: `line ${className}`, d: runs.join("") });
  }

  /** The points without a hole between them. */
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

  /** Shows the figures at a place of the plot, or the latest. */
  #point(x) {
    this.#hovered = x;
    const points = this.#points;
    if (!points.length) return;
    const at =
      x === null ? Infinity : this.#now - (1 - (x - EDGE.left) / (this.#width - EDGE.left - EDGE.right)) * this.#span;
    const near = points.reduce((best, point) => (Math.abs(point[0] - at) <= Math.abs(best[0] - at) ? point : best));
    const point = x === null ? points.at(-1) : near;
    setAttribute(this.#cursor, "d", x === null ? "" : `M${this.#x(point[0])} ${EDGE.top}V${HEIGHT - EDGE.bottom}`);
    const [when, ...figures] = this.#readout.children;
    setText(when, x === null ? "" : clock(point[0]));
    this.#lines.forEach(({ name, index }, at) => setText(figures[at], `${name} ${this.#format(point[index])}`.trim()));
  }

  #summary() {
    const parts = this.#lines.map(({ name, index }) => {
      const values = this.#points.map((point) => point[index]).filter(Number.isFinite);
      if (!values.length) return `${name} not measured`;
      const [now, least, most] = [values.at(-1), Math.min(...values), Math.max(...values)].map(this.#format);
      return `${name} last ${now}, least ${least}, most ${most}`.trim();
    });
    return `${this.#title} in the last quarter of an hour: ${parts.join("; ")}. The table below has the figures.`;
  }
}

// ---- scales: where a value is, from 0 at the bottom to 1 at the top, and what is written beside

/** From 0 to the round figure at or above the largest value. */
export function linear(values) {
  const most = Math.max(...values, 1);
  const power = 10 ** Math.floor(Math.log10(most));
  const top = STEPS.find((step) => step * power >= most) * power;
  return { place: (value) => value / top, ticks: [0, top / 2, top] };
}

/** From one power of ten to another. */
export function logarithmic(values) {
  const above = values.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(...above, 1)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(...above, 1))), low + 1);
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  return { place: (value) => Math.max(0, Math.log10(value) - low) / (high - low), ticks };
}
