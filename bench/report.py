"""The figures of the benchmarks: as a table with ratios, and as a JSON file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """A value that one run measured."""

    metric: str
    unit: str
    value: float


@dataclass(frozen=True)
class Row:
    """One metric of one configuration, with a value for each run.

    `case` names what is varied, such as a rate or a number of clients. Rows that differ only in `config` are compared.
    """

    bench: str
    case: str
    config: str
    metric: str
    unit: str
    runs: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of all runs."""
        return median(self.runs)

    def ratio(self, base: "Row") -> float:
        """Return the median of the ratios to `base` in each round, because the runs of a round are close in time.

        A ratio is infinity if only `base` is 0, and 1 if both are 0.
        """
        return median(_ratio(own, other) for own, other in zip(self.runs, base.runs, strict=True))

    def as_json(self) -> dict[str, Any]:
        """Return the row for the JSON file."""
        names = ("bench", "case", "config", "metric", "unit")
        return {name: getattr(self, name) for name in names} | {"median": self.median, "runs": self.runs}


class Report:
    """All figures and notes.

    Args:
        machine: lines that describe the machine.
    """

    def __init__(self, machine: Sequence[str] = ()) -> None:
        self._machine = machine
        self._groups: dict[tuple[str, str, str], dict[str, Row]] = {}  # rows that are compared, by configuration
        self._notes: list[str] = []

    @property
    def rows(self) -> list[Row]:
        """All rows; those that are compared are next to each other."""
        return [row for group in self._groups.values() for row in group.values()]

    def run(self, bench: str, case: str, config: str, *figures: Figure) -> None:
        """Add the figures of one run of a configuration."""
        for metric, unit, value in figures:
            group = self._groups.setdefault((bench, case, metric), {})
            group.setdefault(config, Row(bench, case, config, metric, unit)).runs.append(value)

    def note(self, text: str) -> None:
        """Add a line that is printed below the figures."""
        self._notes.append(text)

    def table(self, bases: Mapping[str, str]) -> str:
        """Format everything as text.

        Args:
            bases: the configuration that the others are compared with, by benchmark.
        """
        lines = [*self._machine]
        for (bench, case, metric), group in self._groups.items():
            rows = list(group.values())
            lines += [
                "",
                f"{bench}, {case}: {metric}, {rows[0].unit}",
                *_compared(rows, group.get(bases[bench], rows[0])),
            ]
        return "\n".join([*lines, *([""] if self._notes else []), *self._notes])

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        content = {"machine": list(self._machine), "rows": [row.as_json() for row in self.rows], "notes": self._notes}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read the rows from a file that `Report.write` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [Row(*(row[name] for name in ("bench", "case", "config", "metric", "unit", "runs"))) for row in rows]


def _compared(rows: Sequence[Row], base: Row) -> list[str]:
    width = max(16, *(len(row.config) for row in rows))
    lines = [f"  {'':{width}}{'ratio':>8}{'median':>12}{'least':>12}{'most':>12}{'runs':>6}"]
    for row in rows:
        figures = "".join(f"{readable(value):>12}" for value in (row.median, min(row.runs), max(row.runs)))
        lines.append(f"  {row.config:{width}}{readable(row.ratio(base)):>8}{figures}{len(row.runs):>6}")
    return lines


def _ratio(own: float, other: float) -> float:
    if other:
        return own / other
    return inf if own else 1.0


def readable(value: float) -> str:
    """Format a number with two or three significant digits."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:,.{digits}f}"
