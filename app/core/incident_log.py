"""The incident log (the stream `{ns}:ledger` in Redis): what happened, for people. Every process adds to it."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

_MAX_STORED = 500  # entries that Redis keeps, about
_MAX_WAITING = 100  # incidents that a process keeps until they are written


class Kind(StrEnum):
    """The kind of an incident."""

    START = "start"  # a program started
    EPOCH = "epoch"  # a listener started an epoch, which is a gap for every client
    GAP = "gap"  # a gap for the clients of one worker
    FAILOVER = "failover"  # a standby appended events
    PUT_BACK = "put-back"  # a listener restored events that the stream had lost
    OVERFLOW = "overflow"  # a listener dropped the events of a full buffer


class Incident(NamedTuple):
    """Something that happened at `when`, on the monotonic clock."""

    kind: Kind
    text: str
    when: float


class LogEntry(NamedTuple):
    """An entry of the incident log: `at` is in Unix seconds, `who` is the process that wrote it."""

    at: float
    kind: str
    who: str
    text: str


class Incidents:
    """The incidents that are not in the log yet. If Redis is away for so long that they are too many, the oldest go."""

    def __init__(self) -> None:
        self._waiting: deque[Incident] = deque(maxlen=_MAX_WAITING)

    def __iter__(self) -> Iterator[Incident]:
        return iter(self._waiting)

    def add(self, kind: Kind, text: str, when: float) -> None:
        """Add an incident that happened at `when`, on the monotonic clock."""
        self._waiting.append(Incident(kind, text, when))

    def drain(self) -> list[Incident]:
        """Remove and return all incidents, to be written; `requeue` them if that fails."""
        drained = list(self._waiting)
        self._waiting.clear()
        return drained

    def requeue(self, drained: Iterable[Incident]) -> None:
        """Put incidents back that could not be written, before those that were added since."""
        self._waiting = deque([*drained, *self._waiting], _MAX_WAITING)


def log_entry(incident: Incident, who: str) -> LogEntry:
    """Return an incident as an entry of the log. Only in the process that recorded it is its time known."""
    return LogEntry(time.time() - (time.monotonic() - incident.when), incident.kind, who, incident.text)


def write_incidents(pipeline: Any, key: str, who: str, incidents: Iterable[Incident]) -> None:
    """Queue the commands that write incidents on a pipeline of redis-py's, synchronous or asynchronous."""
    for at, kind, by, text in (log_entry(incident, who) for incident in incidents):
        fields = {"at": f"{at:.3f}", "kind": kind, "who": by, "text": text}
        pipeline.xadd(key, fields, maxlen=_MAX_STORED, approximate=True)


def parse_log(entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> list[LogEntry]:
    """Parse a stream's entries, in their order. One that was written twice, because an answer was lost, is left out."""
    parsed: dict[LogEntry, None] = {}
    for _, fields in entries:
        try:
            at = float(fields[b"at"])
            kind, who, text = (fields[name].decode(errors="replace") for name in (b"kind", b"who", b"text"))
        except (KeyError, ValueError):
            continue  # not written by this project
        parsed[LogEntry(at, kind, who, text)] = None
    return list(parsed)
