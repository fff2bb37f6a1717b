"""The ledger: what happened, for people who come later. A small stream in Redis, which every process adds to."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

_LINES = 500  # about as many are kept in Redis
_WAITING = 100  # and as many in a process, until they are written


class Kind(StrEnum):
    """What kind of thing happened."""

    START = "start"  # a program started
    EPOCH = "epoch"  # a listener began to count anew, which is a gap to every client
    GAP = "gap"  # another gap, of one worker
    FAILOVER = "failover"  # a standby had to append
    PUT_BACK = "put-back"  # a stream that had lost events got them back
    OVERFLOW = "overflow"  # a listener gave up what it held


class Incident(NamedTuple):
    """Something that happened, for people; `when` is on the monotonic clock."""

    kind: Kind
    text: str
    when: float


class LogEntry(NamedTuple):
    """The same as it stands in the ledger; `at` is in Unix seconds, `who` the process that wrote it."""

    at: float
    kind: str
    who: str
    text: str


class Incidents:
    """What is not in the ledger yet. When Redis is away for so long that they are too many, the oldest are dropped."""

    def __init__(self) -> None:
        self._waiting: deque[Incident] = deque(maxlen=_WAITING)

    def __iter__(self) -> Iterator[Incident]:
        return iter(self._waiting)

    def note(self, kind: Kind, text: str, when: float) -> None:
        """Adds one."""
        self._waiting.append(Incident(kind, text, when))

    def take(self) -> list[Incident]:
        """Takes all, to be written; `put_back` if they can't be."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def put_back(self, taken: Iterable[Incident]) -> None:
        """Puts those back that could not be written."""
        self._waiting = deque([*taken, *self._waiting], _WAITING)


def line(incident: Incident, who: str) -> LogEntry:
    """An incident as a line of the ledger; it is to be made while the clock that timed it goes on."""
    return LogEntry(time.time() - (time.monotonic() - incident.when), incident.kind, who, incident.text)


def write(pipeline: Any, key: str, who: str, incidents: Iterable[Incident]) -> None:
    """Queues incidents on a pipeline of redis-py's, synchronous or asynchronous."""
    for at, kind, by, text in (line(incident, who) for incident in incidents):
        fields = {"at": f"{at:.3f}", "kind": kind, "who": by, "text": text}
        pipeline.xadd(key, fields, maxlen=_LINES, approximate=True)


def parse(entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> list[LogEntry]:
    """The lines in a stream's entries, in their order; one that was written twice, over a lost answer, stands once."""
    lines: dict[LogEntry, None] = {}
    for _, fields in entries:
        try:
            at = float(fields[b"at"])
            kind, who, text = (fields[name].decode(errors="replace") for name in (b"kind", b"who", b"text"))
        except (KeyError, ValueError):
            continue  # somebody else's
        lines[LogEntry(at, kind, who, text)] = None
    return list(lines)
