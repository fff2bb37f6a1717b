// Event rate and latency over the last 15 minutes, as two plots and as a table.

import { $, element, reconcile, setText } from "./dom.js";
import { milliseconds, minute, rate } from "./format.js";
import { Plot, SPAN_SECONDS, linear, logarithmic } from "./plot.js";

const [RATE, P50, P99] = [1, 2, 3]; // indexes in a point

const plots = [
  new Plot($("plot-rate"), {
    title: "Events per second",
    lines: [{ name: "", index: RATE, className: "rate" }],
    format: rate,
    scale: linear,
  }),
  new Plot($("plot-latency"), {
    title: "From NOTIFY to worker",
    lines: [
      { name: "p99", index: P99, className: "p99" },
      { name: "p50", index: P50, className: "p50" },
    ],
    format: milliseconds,
    scale: logarithmic, // a delay of a minute has to fit beside a latency of a millisecond
  }),
];

let points = new Map(); // by start time

/** Adds the points of a message and redraws. With `isFirst` the message has all points. */
export function renderTimeSeries({ at, series, ledger }, isFirst) {
  if (isFirst) points = new Map();
  for (const point of series.points) points.set(point[0], point);
  for (const start of points.keys()) if (start < at - SPAN_SECONDS) points.delete(start);
  const sorted = [...points.values()].sort((a, b) => a[0] - b[0]);
  const marks = ledger.filter(({ kind }) => kind !== "start");
  for (const plot of plots) plot.draw(sorted, marks, at, series.step);
  renderMinutes(sorted);
}

function renderMinutes(sorted) {
  const minutes = new Map();
  for (const point of sorted) {
    const start = Math.floor(point[0] / 60) * 60;
    minutes.set(start, [...(minutes.get(start) ?? []), point]);
  }
  const rows = [...minutes].reverse();
  reconcile($("minutes").querySelector("tbody"), rows, ([start]) => start, createMinute, updateMinute);
}

function createMinute([start]) {
  const row = element("tr");
  const head = element("th", "", minute(start));
  head.scope = "row";
  row.append(head, ...[RATE, P50, P99].map(() => element("td", "figure")));
  return row;
}

function updateMinute(row, [, minutePoints]) {
  const [rates, p50s, p99s] = [RATE, P50, P99].map((index) =>
    minutePoints.map((point) => point[index]).filter(Number.isFinite),
  );
  setText(row.children[1], rate(rates.reduce((sum, value) => sum + value, 0) / rates.length));
  setText(row.children[2], milliseconds(p50s.sort((a, b) => a - b)[Math.floor(p50s.length / 2)]));
  setText(row.children[3], milliseconds(p99s.length ? Math.max(...p99s) : NaN));
}
