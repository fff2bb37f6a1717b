"""What a worker says of itself, once a second: to the registry, to the metrics and on the status page."""

from collections import Counter
from typing import NamedTuple, Protocol

from app.core.canary import Canary
from app.monitoring.event_stats import EventStats, Verified
from app.sources.base import GapReason


class WorkerReport(NamedTuple):
    """Counters since the worker started, and how things stand."""

    mode: str
    clients: int
    position: str | None  # the last event delivered
    events: int
    gaps: Counter[GapReason]
    suppressed: int
    reconnects: int
    slow_closes: int
    recovered: int  # clients that came back and heard what they had missed
    restarted: int  # clients that came back and started from a snapshot
    snapshots: int  # queries
    failed_snapshots: int
    queue_bytes: int  # what waits for all clients, as it was within the last second
    p50: float | None  # seconds from NOTIFY to here, in the last minute
    p99: float | None
    verified: Verified | None


class WorkerState(Protocol):
    """What the status page and the metrics read of a worker; `MatchDataWebSocketManager` has it."""

    mode: str
    observer: EventStats

    @property
    def is_connected(self) -> bool:
        """Whether the worker's server is connected and answers."""

    @property
    def outage(self) -> str | None:
        """Why it isn't, None while it is."""

    @property
    def broken(self) -> bool:
        """Whether a bug ended the worker's source, so that only a restart helps."""

    @property
    def behind(self) -> bool:
        """Whether the worker knows of events that it has not delivered yet."""

    @property
    def canary_at(self) -> float | None:
        """When the last canary arrived, on the monotonic clock."""

    @property
    def last_canary(self) -> Canary:
        """The last canary; an empty one if it is too old."""

    def unready(self) -> list[str]:
        """Why the worker is not ready; empty when it is."""

    def report(self) -> WorkerReport:
        """The worker's counters and state."""


def fields(report: WorkerReport) -> dict[str, str | int]:
    """A report as the worker's hash in Redis has it; what isn't known is empty."""
    return {
        "mode": report.mode,
        "clients": report.clients,
        "position": report.position or "",
        "events": report.events,
        "gaps": report.gaps.total(),
        "suppressed": report.suppressed,
        "slow_closes": report.slow_closes,
        "recovered": report.recovered,
        "snapshots": report.snapshots,
        "queue_bytes": report.queue_bytes,
        "p50_ms": _milliseconds(report.p50),
        "p99_ms": _milliseconds(report.p99),
        "verified": report.verified.token if report.verified else "",
        "verified_at": f"{report.verified.at:.6f}" if report.verified else "",
    }


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.3f}"
