"""The rows of listeners and workers in `/api/status`, from their entries in the registry."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from app.core.heartbeat import DEAD_SECONDS, RegistryEntry

_LATE_SECONDS = 3.5  # since the last heartbeat; a listener may take three to find that PostgreSQL is away

ProcessRow = dict[str, Any]
SlotRow = dict[str, Any]


def listeners(entries: Iterable[RegistryEntry]) -> list[ProcessRow]:
    """Return the listeners' rows, without those that were replaced by a later one of the same pod and program."""
    rows = [_row(entry, _LISTENER_FIELDS) for entry in entries]
    rows.sort(key=lambda row: (row["pod"], row["program"], row["started"]))
    latest = {(row["pod"], row["program"]): row["uid"] for row in rows}
    return [row for row in rows if row["state"] == "alive" or row["uid"] == latest[row["pod"], row["program"]]]


def slot(name: str, entries: Iterable[RegistryEntry]) -> SlotRow:
    """Return what the listeners say of a replication slot: the one that reads it, or else the one that did last."""
    of_slot = [entry for entry in entries if entry.fields.get("slot") == name]
    readers = [entry for entry in of_slot if _reads(entry)]
    last = max(readers or of_slot, key=lambda entry: _float(entry.fields.get("slot_at", "")) or 0.0, default=None)
    fields = last.fields if last else {}
    reader = f"{fields.get('pod', '')}/{fields.get('program', '')}" if readers else None
    about = {key: parse(fields.get(f"slot_{key}", "")) for key, parse in _SLOT_FIELDS.items()}
    return {"name": name, "reader": reader, **about}


def _reads(entry: RegistryEntry) -> bool:
    """Whether a listener that is set to read a slot does read it."""
    return _state(entry) == "alive" and entry.fields.get("role") not in {None, "unconnected", "waiting", "reserve"}


def workers(entries: Iterable[RegistryEntry]) -> list[ProcessRow]:
    """Return the rows of the workers that are running."""
    rows = [_row(entry, _WORKER_FIELDS) for entry in entries]
    return sorted((row for row in rows if row["state"] in {"alive", "late"}), key=lambda row: (row["pod"], row["pid"]))


def _row(entry: RegistryEntry, parsers: Mapping[str, Callable[[str], object]]) -> ProcessRow:
    """Parse an entry. A field that is missing or malformed is empty, zero or None, depending on its type."""
    fields = entry.fields
    return {
        "pod": fields.get("pod", ""),
        "pid": _int(fields.get("pid", "")),
        "state": _state(entry),
        "started": _float(fields.get("started", "")) or 0.0,
        "beat_age": round(entry.age, 3),
        **{name: parse(fields.get(name, "")) for name, parse in parsers.items()},
    }


def _state(entry: RegistryEntry) -> str:
    if entry.fields.get("state") == "stopped":
        return "stopped"
    if entry.age > DEAD_SECONDS:
        return "dead"
    return "late" if entry.age > _LATE_SECONDS else "alive"


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_LISTENER_FIELDS: dict[str, Callable[[str], object]] = {
    "program": str,
    "uid": str,
    "role": lambda text: text or "unconnected",
    "position": lambda text: text or None,
    **dict.fromkeys(("buffered", "received", "added", "suppressed", "restored", "failovers"), _int),
    "lock_waiters": _int,
    "lock_wait_seconds": lambda text: _float(text) or 0.0,
    "passive": str,
    "outage": str,
    "connected_since": _float,
    "round_trip_ms": _float,
    "clock_ahead": _float,
}
_SLOT_FIELDS: dict[str, Callable[[str], object]] = {
    "pid": _int,
    "wal_status": str,
    "retained_bytes": _float,
    "max_bytes": _float,  # negative without a limit
    "confirmed": str,
    "confirmed_since": _float,
    "at": _float,
}
# A worker's own row comes from `WorkerReport.row`, which has the same fields.
_WORKER_FIELDS: dict[str, Callable[[str], object]] = {
    "uid": str,
    "mode": str,
    "position": lambda text: text or None,
    **dict.fromkeys(("clients", "events", "gaps", "suppressed", "fed", "slow_closes", "recovered", "snapshots"), _int),
    "queue_bytes": _int,
    "p50_ms": _float,
    "p99_ms": _float,
}
