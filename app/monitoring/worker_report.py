"""A worker's counters and state, as the registry, the metrics and the status page show them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from app.broadcast.unroutable import Unroutable
from app.core.canary import Canary
from app.monitoring.event_stats import EventStats, Verified
from app.sources.base import SourceStatus
from notifymux.sequence_tracker import GapReason

_MAX_UNROUTABLE_IN_HASH = 20  # channels and causes: the hash is written every second


class QueryCounts(NamedTuple):
    """The queries for updates, since the worker started."""

    run: int = 0
    failed: int = 0
    merged: int = 0  # updates that a newer one covers
    overflows: int = 0  # times that a match had too many updates that waited
    waiting: int = 0  # updates, now


class RightsCounts(NamedTuple):
    """The queries for clients' rights, since the worker started."""

    asked: int = 0
    failed: int = 0
    revoked: int = 0  # clients that were closed, since they may not have their match any longer
    unchecked: int = 0  # clients that were closed, since there was no answer for too long
    waiting: int = 0  # queries, now


class WorkerReport(NamedTuple):
    """A worker's state, and its counters since it started."""

    mode: str
    source: SourceStatus
    clients: int
    events: int
    gaps: Counter[GapReason]
    slow_closes: int
    recovered: int  # clients that resumed and received what they had missed
    restarted: int  # clients that wanted to resume and started from a snapshot
    snapshots: int  # queries
    failed_snapshots: int
    waiting_snapshots: int  # matches that wait for their turn
    oldest_snapshot_wait: float  # seconds
    queries: QueryCounts
    rights: RightsCounts
    queue_bytes: int  # queued for all clients, within the last second
    p50: float | None  # seconds from NOTIFY to this worker, in the last minute
    p99: float | None
    verified: Verified | None
    unroutable: Sequence[Unroutable] = ()  # events that no client heard, the most frequent cause first

    def row(self) -> dict[str, Any]:
        """Return the fields that the worker's row in `/api/status` and its hash in the registry have in common."""
        return {
            "mode": self.mode,
            "position": str(self.source.position) if self.source.position else None,
            "clients": self.clients,
            "events": self.events,
            "gaps": self.gaps.total(),
            "suppressed": self.source.suppressed,
            "fed": int(self.source.is_fed),
            "slow_closes": self.slow_closes,
            "recovered": self.recovered,
            "snapshots": self.snapshots,
            "queue_bytes": self.queue_bytes,
            "p50_ms": milliseconds(self.p50),
            "p99_ms": milliseconds(self.p99),
        }

    def hash_fields(self) -> dict[str, str | int]:
        """Return the fields of the worker's hash in the registry. What is unknown is empty."""
        verified = {"verified": "", "verified_at": ""}
        if self.verified:
            verified = {"verified": self.verified.token, "verified_at": f"{self.verified.at:.6f}"}
        unroutable = msgspec.json.encode([each._asdict() for each in self.unroutable[:_MAX_UNROUTABLE_IN_HASH]])
        fields = {name: "" if value is None else value for name, value in self.row().items()}
        return fields | verified | {"unroutable": unroutable.decode()}


def milliseconds(seconds: float | None) -> float | None:
    """Convert seconds to milliseconds, rounded to microseconds; None stays None."""
    return None if seconds is None else round(seconds * 1000, 3)


class WorkerState(Protocol):
    """What the status page and the metrics read of a worker; `MatchDataWebSocketManager` provides it."""

    mode: str
    event_stats: EventStats

    @property
    def is_connected(self) -> bool:
        """Whether the worker's server is connected and answers."""

    @property
    def broken(self) -> bool:
        """Whether a bug ended the worker's source. Only a restart helps then."""

    @property
    def last_canary(self) -> Canary:
        """The last canary; an empty one if it is too old."""

    def unready(self) -> list[str]:
        """Why the worker is not ready; empty when it is."""

    def degraded(self) -> list[str]:
        """Why the worker is ready by the feed alone; empty when it is not, or all is well."""

    def report(self) -> WorkerReport:
        """Return the worker's state and counters."""
