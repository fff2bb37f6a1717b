"""The sequencer's requests to Redis and their answers. `listener.redis_stream` performs them."""

from enum import Enum
from typing import NamedTuple

from notifymux.event import EventId


class ReadHead(NamedTuple):
    """Reads the id of the stream's last entry. Answer: an `EventId`, or None if the stream is empty."""


class CheckOtherListeners(NamedTuple):
    """Checks the registry for another listener that is alive. Answer: a bool, true in doubt."""


class ReadAfter(NamedTuple):
    """Reads at most `limit` entries after an id, oldest first. Answer: a list of `StreamEntry`."""

    after: EventId
    limit: int


class ReadRecent(NamedTuple):
    """Reads the last entries, at most `limit`, newest first. Answer: a list of `StreamEntry`.

    Those are left out that come after `until`, if it is given.
    """

    limit: int
    until: EventId | None = None


class ReadEntry(NamedTuple):
    """Reads one entry's text. Answer: bytes, or None if there is no such entry."""

    id: EventId


class Append(NamedTuple):
    """Appends texts under consecutive ids and publishes them, atomically. Answer: an `AppendResult`.

    With `restore` they are not published, and may follow a gap: the stream had them before and lost them. `after` is
    the place in the WAL of the event that the first one follows; empty if it is not known, or has none.
    """

    first: EventId
    texts: list[bytes]
    restore: bool = False
    after: str = ""


Request = ReadHead | CheckOtherListeners | ReadAfter | ReadRecent | ReadEntry | Append


class StreamEntry(NamedTuple):
    """One entry of the stream."""

    id: EventId
    text: bytes


class AppendStatus(Enum):
    """The result of an append; all but OK append nothing."""

    OK = "ok"  # every text is in the stream now
    SUPERSEDED = "superseded"  # the stream has a later epoch
    GAP = "gap"  # the stream has this epoch, and ends before the entry that the first text must follow
    BEHIND = "behind"  # the stream is empty or has an earlier epoch


class AppendResult(NamedTuple):
    """The answer to an append: the head afterwards (0-0 for an empty stream), and how many entries it added."""

    status: AppendStatus
    head: EventId
    added: int


Answer = EventId | bool | list[StreamEntry] | bytes | AppendResult | None
