"""What a worker remembers of the last events, by match: clients that come back are served from here."""

from collections import deque
from typing import NamedTuple

from app.core.event import EventId
from app.messages import Message

_OVERHEAD = 400  # bytes an event takes besides its text


class Mark(NamedTuple):
    """A place in the history, between two events."""

    number: int  # of the events before it, by this worker's own count, which also works without numbers
    position: EventId | None  # the last number before it


class _Record(NamedTuple):
    number: int
    id: EventId | None
    match: str
    message: Message


class History:
    """The newest events without a hole, in the order in which they came.

    Args:
        limit: bytes to keep; the oldest events make room.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._count = 0
        self._records: deque[_Record] = deque()
        self._matches: dict[str, deque[_Record]] = {}
        self._floor = Mark(0, None)  # everything after it is here
        self.position: EventId | None = None

    @property
    def mark(self) -> Mark:
        """The place after the last event."""
        return Mark(self._count, self.position)

    def restart(self, position: EventId | None) -> None:
        """Forgets everything: what comes now comes after `position`, and no older mark is covered."""
        self._records.clear()
        self._matches.clear()
        self._bytes = 0
        self._count += 1
        self.position = position
        self._floor = self.mark

    def advance(self, position: EventId | None) -> None:
        """Notes the number of an event, also of one that isn't recorded."""
        self.position = position or self.position

    def record(self, match: str, event_id: EventId | None, message: Message) -> None:
        """Takes in the next event of a match; `event_id` is None if it has no number."""
        self._count += 1
        record = _Record(self._count, event_id, match, message)
        self._records.append(record)
        self._matches.setdefault(match, deque()).append(record)
        self._bytes += _size(record)
        while self._bytes > self._limit:
            self._forget_oldest()

    def covers(self, mark: Mark) -> bool:
        """Whether every event since `mark` is here."""
        return mark.number >= self._floor.number

    def has_news(self, match: str, mark: Mark) -> bool:
        """Whether the match has an event since a mark that is covered."""
        records = self._matches.get(match)
        return records is not None and records[-1].number > mark.number

    def since(self, match: str, mark: Mark) -> list[Message] | None:
        """The match's events since `mark`; None if some are forgotten."""
        if not self.covers(mark):
            return None
        return self._newest(match, mark.number)

    def after(self, match: str, event_id: EventId) -> list[Message] | None:
        """The match's numbered events after `event_id`; None if some may be forgotten, or it isn't of this epoch."""
        floor = self._floor.position
        if floor is None or event_id.epoch != floor.epoch or event_id < floor:
            return None
        found = []
        for record in reversed(self._matches.get(match, ())):
            if record.id is None:
                continue
            if record.id <= event_id:
                break
            found.append(record.message)
        return found[::-1]

    def _newest(self, match: str, number: int) -> list[Message]:
        found = []
        for record in reversed(self._matches.get(match, ())):
            if record.number <= number:
                break
            found.append(record.message)
        return found[::-1]

    def _forget_oldest(self) -> None:
        record = self._records.popleft()
        records = self._matches[record.match]
        records.popleft()
        if not records:
            del self._matches[record.match]
        self._bytes -= _size(record)
        self._floor = Mark(record.number, record.id or self._floor.position)


def _size(record: _Record) -> int:
    return len(record.message.text) + _OVERHEAD
