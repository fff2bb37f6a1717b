"""The result of a chaos run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.delivery_check import Deliveries
from tests.chaos.source import SOURCES, Source

NO_FAULT = "no fault"


@dataclass
class Report:
    """The figures of one run, and the promises that it broke."""

    source: Source
    listeners: int
    seed: int
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)  # announced, by the fault during which they were
    recovery: dict[str, float] = field(default_factory=dict)  # longest, in seconds, by fault
    committed: int = 0
    clients: int = 0
    deliveries: Deliveries = field(default_factory=Deliveries)
    max_listen_rows: int = 0  # of one listener
    log: str = ""

    @property
    def violations(self) -> list[str]:
        """The promises that were broken."""
        deliveries, violations = self.deliveries, list(self.deliveries.errors)
        if deliveries.lost or deliveries.repeated or deliveries.out_of_order:
            violations.append(
                f"{deliveries.lost} lost, {deliveries.repeated} repeated, {deliveries.out_of_order} out of order"
            )
        expected = self.source.gaps if self.listeners > 1 else self.source.lone_gaps
        unexpected = [fault for fault in self.gaps if fault not in expected]
        violations += [f"{self.gaps[fault]} gaps at {fault!r} with {self.listeners} listeners" for fault in unexpected]
        if deliveries.announced and not self.gaps.total():
            violations.append(f"{deliveries.announced} events missing")
        if self.max_listen_rows != self.source.listen_rows:
            violations.append(f"a listener had {self.max_listen_rows} LISTEN rows")
        return violations


def table(reports: Sequence[Report]) -> str:
    """Format the figures, with one column per run."""
    names = dict.fromkeys(name for source in SOURCES.values() for name in source.faults)
    rows: list[tuple[str, ...]] = [
        ("SOURCE", *(report.source.name for report in reports)),
        ("listeners", *(str(report.listeners) for report in reports)),
        ("seconds", *(f"{report.seconds:.0f}" for report in reports)),
        ("faults", *(str(report.faults.total()) for report in reports)),
        *((f"  {fault}", *(str(report.faults[fault]) for report in reports)) for fault in names),
        ("events committed", *(f"{report.committed:,}" for report in reports)),
        ("clients", *(str(report.clients) for report in reports)),
        ("deliveries", *(f"{report.deliveries.received:,}" for report in reports)),
        ("lost", *(str(report.deliveries.lost) for report in reports)),
        ("repeated", *(str(report.deliveries.repeated) for report in reports)),
        ("out of order", *(str(report.deliveries.out_of_order) for report in reports)),
        ("gaps announced", *(str(report.gaps.total()) for report in reports)),
        *(
            (f"  {fault}", *(str(report.gaps[fault]) for report in reports))
            for fault in sorted({fault for report in reports for fault in report.gaps})
        ),
        ("  missing, deliveries", *(f"{report.deliveries.announced:,}" for report in reports)),
        ("most LISTEN rows each", *(str(report.max_listen_rows) for report in reports)),
        ("longest recovery, s", *(f"{max(report.recovery.values(), default=0):.1f}" for report in reports)),
    ]
    return "\n".join(f"{name:24}" + "".join(f"{value:>12}" for value in values) for name, *values in rows)
