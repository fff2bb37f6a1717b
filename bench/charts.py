"""Charts for the documentation: `python -m bench.charts FILE --out FOLDER`.

Each chart is an SVG of horizontal bars of the medians, with a thin line from the least to the most of all runs. It is
legible on light and dark backgrounds.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from bench.report import Row, read_rows, readable


class Chart(NamedTuple):
    """The chart of one metric."""

    name: str
    title: str
    cases: Sequence[tuple[str, str]]  # benchmarks and cases whose rows it shows
    metric: str
    own: str  # prefix of the configurations of notifymux


CHARTS = (
    Chart(
        "throughput",
        "Events a second to one client on each of 4 workers (100 notifications per transaction)",
        [("throughput", "100 per transaction"), ("peers", "100 per transaction")],
        "events_per_s",
        "redis",
    ),
    Chart(
        "latency", "From NOTIFY to a client at 200 events a second: median, ms", [("latency", "200/s")], "p50", "redis"
    ),
    Chart(
        "writers",
        "Commits a second with one NOTIFY each, by number of receivers",
        [("writers", "one NOTIFY each")],
        "commits_per_s",
        "listener",
    ),
    Chart(
        "fanout",
        "Frames a second to 1,000 clients on one worker, in bursts of 10 events",
        [("fanout", "1000 clients, 1 worker")],
        "frames_per_s in bursts of 10",
        "redis",
    ),
)

_NAMES = {"redis": "notifymux", "postgres": "notifymux, direct mode", "plain-listen": "psycopg and Starlette"}
_WIDTH, _LABEL, _VALUE = 760, 160, 80
_TOP, _STEP, _BAR = 44, 28, 18
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.own { fill: #2f81f7 }
.other { fill: #8b949e }
.runs { stroke: #24292f }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .runs { stroke: #e6edf3 } }
"""


def svg(chart: Chart, rows: Sequence[Row]) -> str:
    """Return the SVG for some rows, at least one."""
    scale = (_WIDTH - _LABEL - _VALUE) / max(max(row.runs) for row in rows)
    height = _TOP + _STEP * len(rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(chart.title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="0" y="18">{escape(chart.title)}</text>',
    ]
    for index, row in enumerate(rows):
        lines += _bar(row, _TOP + index * _STEP, scale, "own" if row.config.startswith(chart.own) else "other")
    return "\n".join([*lines, "</svg>", ""])


def _bar(row: Row, top: int, scale: float, kind: str) -> list[str]:
    name = escape(_NAMES.get(row.config, row.config))
    middle, end = top + _BAR / 2, _LABEL + row.median * scale
    least, most = (_LABEL + value * scale for value in (min(row.runs), max(row.runs)))
    return [
        f'<text x="{_LABEL - 8}" y="{middle + 4:.0f}" text-anchor="end">{name}</text>',
        f'<rect class="{kind}" x="{_LABEL}" y="{top}" width="{row.median * scale:.1f}" height="{_BAR}" rx="2"/>',
        f'<line class="runs" x1="{least:.1f}" x2="{most:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{max(end, most) + 8:.1f}" y="{middle + 4:.0f}">{readable(row.median)}</text>',
    ]


def rows_of(chart: Chart, rows: Iterable[Row]) -> list[Row]:
    """Return the rows of a chart. Of a configuration that two benchmarks measured, it is the first row."""
    found: dict[str, Row] = {}
    for row in rows:
        if row.metric == chart.metric and (row.bench, row.case) in chart.cases:
            found.setdefault(row.config, row)
    return list(found.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw every chart for which the file has figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.charts", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="written by `python -m bench NAME --json FILE`")
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True)
    options = parser.parse_args(arguments)
    rows = read_rows(options.file)
    options.out.mkdir(parents=True, exist_ok=True)
    for chart in CHARTS:
        if found := rows_of(chart, rows):
            (options.out / f"{chart.name}.svg").write_text(svg(chart, found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
