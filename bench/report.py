"""Figures: rows of runs, the table they are printed as (ratios first), and the JSON they are kept as."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One value of one run."""

    metric: str
    unit: str
    value: float


@dataclass(frozen=True)
class Row:
    """One metric of one configuration: a value per run.

    `case` tells what was varied (a rate, a number of clients); rows that differ in `config` alone are compared.
    """

    bench: str
    case: str
    config: str
    metric: str
    unit: str
    runs: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle of the runs."""
        return median(self.runs)

    def ratio(self, base: "Row") -> float:
        """How many times `base` this is: the median over the rounds, for a round's runs stand next to each other.

        Infinity where `base` is nothing, and 1 where both are.
        """
        return median(_ratio(own, other) for own, other in zip(self.runs, base.runs, strict=True))

    def as_json(self) -> dict[str, Any]:
        """The row as it is kept."""
        names = ("bench", "case", "config", "metric", "unit")
        return {name: getattr(self, name) for name in names} | {"median": self.median, "runs": self.runs}


class Report:
    """What was measured.

    Args:
        machine: lines that say on what.
    """

    def __init__(self, machine: Sequence[str] = ()) -> None:
        self._machine = machine
        self._groups: dict[tuple[str, str, str], dict[str, Row]] = {}  # of rows that are compared, by configuration
        self._notes: list[str] = []

    @property
    def rows(self) -> list[Row]:
        """All rows, those that are compared next to each other."""
        return [row for group in self._groups.values() for row in group.values()]

    def run(self, bench: str, case: str, config: str, *figures: Figure) -> None:
        """Adds what one run of a configuration gave."""
        for metric, unit, value in figures:
            group = self._groups.setdefault((bench, case, metric), {})
            group.setdefault(config, Row(bench, case, config, metric, unit)).runs.append(value)

    def note(self, text: str) -> None:
        """Adds a line that belongs to the figures."""
        self._notes.append(text)

    def table(self, bases: Mapping[str, str]) -> str:
        """Everything as text.

        Args:
            bases: per bench, the configuration the others are compared with.
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
        """Keeps it as JSON."""
        kept = {"machine": list(self._machine), "rows": [row.as_json() for row in self.rows], "notes": self._notes}
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """What `Report.write` kept."""
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [Row(*(row[name] for name in ("bench", "case", "config", "metric", "unit", "runs"))) for row in kept]


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
    """A number with the digits that mean something."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:,.{digits}f}"
