"""Figures: rows of runs, the table they are printed as (ratios first), and the JSON they are kept as."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure of one configuration: a value per run.

    `case` tells what was varied (a rate, a number of clients); rows that differ in `config` alone are compared.
    """

    bench: str
    case: str
    config: str
    metric: str
    unit: str
    runs: Sequence[float]

    @property
    def median(self) -> float:
        """The middle of the runs."""
        return median(self.runs)

    def ratio(self, base: "Row") -> float:
        """How many times `base` this is: the median over the rounds, for a round's runs stand next to each other."""
        if len(self.runs) != len(base.runs):
            return self.median / base.median
        return median(own / other for own, other in zip(self.runs, base.runs, strict=True))

    def as_json(self) -> dict[str, Any]:
        """The row as it is kept."""
        names = ("bench", "case", "config", "metric", "unit")
        return {name: getattr(self, name) for name in names} | {"median": self.median, "runs": list(self.runs)}


@dataclass
class Report:
    """What was measured.

    Args:
        machine: lines that say on what.
    """

    machine: Sequence[str] = ()
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, bench: str, case: str, config: str, metric: str, unit: str, runs: Iterable[float]) -> None:
        """Adds a row; one without runs is left out."""
        if values := [float(run) for run in runs]:
            self.rows.append(Row(bench, case, config, metric, unit, values))

    def note(self, text: str) -> None:
        """Adds a line that belongs to the figures."""
        self.notes.append(text)

    def table(self, bases: dict[str, str]) -> str:
        """Everything as text.

        Args:
            bases: per bench, the configuration the others are compared with.
        """
        lines = [*self.machine]
        ordered = sorted(self.rows, key=lambda row: self._place(row))
        for (bench, case, metric, unit), group in groupby(
            ordered, key=lambda row: (row.bench, row.case, row.metric, row.unit)
        ):
            lines += ["", f"{bench}, {case}: {metric}, {unit}" if case else f"{bench}: {metric}, {unit}"]
            lines += _compared(list(group), bases.get(bench, ""))
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])

    def _place(self, row: Row) -> tuple[int, int, int]:
        """Where a row stands: benches, cases and metrics in the order in which they came first."""
        first: list[int] = []
        for names in (("bench",), ("bench", "case"), ("bench", "case", "metric")):
            wanted = [getattr(row, name) for name in names]
            first.append(next(i for i, r in enumerate(self.rows) if [getattr(r, name) for name in names] == wanted))
        return first[0], first[1], first[2]

    def write(self, path: Path) -> None:
        """Keeps it as JSON."""
        kept = {"machine": list(self.machine), "rows": [row.as_json() for row in self.rows], "notes": self.notes}
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _compared(rows: Sequence[Row], base_name: str) -> list[str]:
    base = next((row for row in rows if row.config == base_name), rows[0])
    width = max(16, *(len(row.config) for row in rows))
    lines = [f"  {'':{width}}{'ratio':>8}{'median':>12}{'least':>12}{'most':>12}{'runs':>6}"]
    for row in rows:
        figures = "".join(f"{figure(value):>12}" for value in (row.median, min(row.runs), max(row.runs)))
        lines.append(f"  {row.config:{width}}{figure(row.ratio(base)):>8}{figures}{len(row.runs):>6}")
    return lines


def figure(value: float) -> str:
    """A number with the digits that mean something."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:,.{digits}f}"
