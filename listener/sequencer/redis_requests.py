"""What the numbering asks of Redis, and what it is answered. `listener.log` carries it out."""

from enum import Enum
from typing import NamedTuple

from notifymux.event import EventId


class ReadHead(NamedTuple):
    """Asks for the id of the stream's last entry. Answered with an `EventId`, or None if there is no entry."""


class CheckOtherListeners(NamedTuple):
    """Asks whether the registry shows another listener that is alive. Answered with a bool, true when in doubt."""


class ReadAfter(NamedTuple):
    """Asks for at most `limit` entries after an id, oldest first. Answered with a list of `StreamEntry`."""

    after: EventId
    limit: int


class ReadRecent(NamedTuple):
    """Asks for the last entries, at most `limit`, newest first. Answered with a list of `StreamEntry`."""

    limit: int


class ReadEntry(NamedTuple):
    """Asks for one entry's text. Answered with bytes, or None if it isn't there."""

    id: EventId


class Append(NamedTuple):
    """Asks for texts to be appended under consecutive ids, all in one step. Answered with `AppendResult`.

    With `restore` they are put back without being published, also onto a stream that lost what was before them.
    """

    first: EventId
    texts: list[bytes]
    restore: bool = False


Request = ReadHead | CheckOtherListeners | ReadAfter | ReadRecent | ReadEntry | Append


class StreamEntry(NamedTuple):
    """One entry of the stream."""

    id: EventId
    text: bytes


class AppendStatus(Enum):
    """What became of an append."""

    OK = "ok"  # everything is in the stream now
    SUPERSEDED = "superseded"  # the stream has a later epoch
    GAP = "gap"  # it would have left a hole
    BEHIND = "behind"  # the stream is empty or of an earlier epoch


class AppendResult(NamedTuple):
    """An append's answer: the head afterwards (0-0 without one), and how many entries it added itself."""

    status: AppendStatus
    head: EventId
    added: int


Answer = EventId | bool | list[StreamEntry] | bytes | AppendResult | None
