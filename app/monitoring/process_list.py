"""What the registry says of listeners and workers, as the status page shows it."""

from collections.abc import Iterable
from typing import Any

from app.monitoring.worker_registry import RegistryEntry

LATE, DEAD = 3.5, 5.0  # seconds since the last heartbeat; a listener may take three to find that PostgreSQL is away
_LISTENERS_OWN = ("buffered", "received", "added", "suppressed", "restored", "failovers")
_WORKERS_OWN = (
    "clients",
    "events",
    "gaps",
    "suppressed",
    "slow_closes",
    "recovered",
    "snapshots",
    "queue_bytes",
)

ProcessRow = dict[str, Any]


def listeners(records: Iterable[RegistryEntry]) -> list[ProcessRow]:
    """Every listener's row. One that ended and was replaced by a later one of its pod and program is left out."""
    rows = sorted(map(_listener, records), key=lambda row: (row["pod"], row["program"], row["started"]))
    latest = {(row["pod"], row["program"]): row["uid"] for row in rows}
    return [row for row in rows if row["state"] == "alive" or row["uid"] == latest[row["pod"], row["program"]]]


def workers(records: Iterable[RegistryEntry]) -> list[ProcessRow]:
    """The row of every worker that is there."""
    rows = [worker(record) for record in records]
    return sorted((row for row in rows if row["state"] in {"alive", "late"}), key=lambda row: (row["pod"], row["pid"]))


def worker(record: RegistryEntry) -> ProcessRow:
    """One worker's row."""
    fields = record.fields
    return {
        **_process(record),
        "mode": fields.get("mode", ""),
        "position": fields.get("position") or None,
        **{name: _int(fields.get(name)) for name in _WORKERS_OWN},
        "p50_ms": _float(fields.get("p50_ms")),
        "p99_ms": _float(fields.get("p99_ms")),
    }


def _listener(record: RegistryEntry) -> ProcessRow:
    fields = record.fields
    return {
        **_process(record),
        "program": fields.get("program", ""),
        "uid": fields.get("uid", ""),
        "passive": fields.get("passive", ""),
        "outage": fields.get("outage", ""),
        "lock_waiters": _int(fields.get("lock_waiters")),
        "lock_seconds": _float(fields.get("lock_seconds")) or 0.0,
        "role": fields.get("role", "unconnected"),
        "position": fields.get("position") or None,
        **{name: _int(fields.get(name)) for name in _LISTENERS_OWN},
        "connected_since": _float(fields.get("connected_since")),
        "round_trip_ms": _float(fields.get("round_trip_ms")),
    }


def _process(record: RegistryEntry) -> ProcessRow:
    fields = record.fields
    return {
        "pod": fields.get("pod", ""),
        "pid": _int(fields.get("pid")),
        "state": _state(record),
        "started": _float(fields.get("started")) or 0.0,
        "beat_age": round(record.age, 3),
    }


def _state(record: RegistryEntry) -> str:
    if record.fields.get("state") == "stopped":
        return "stopped"
    if record.age > DEAD:
        return "dead"
    return "late" if record.age > LATE else "alive"


def _int(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _float(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
