"""What a worker remembers of the last events, by match: clients that come back are served from here."""

from collections import defaultdict, deque
from typing import NamedTuple

from app.broadcast.messages import Update
from notifymux.event import EventId

_OVERHEAD = 400  # bytes an event takes besides its payload


class Cursor(NamedTuple):
    """A place in the history, between two events."""

    number: int  # of the events before it, by this worker's own count, which also works without numbers
    position: EventId | None  # the last number before it


class ReplayBuffer:
    """The newest events without a hole, in the order in which they came.

    Args:
        limit: bytes to keep; the oldest events make room.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._count = 0
        self._updates: deque[Update] = deque()
        self._matches: defaultdict[str, deque[Update]] = defaultdict(deque)
        # Everything after these is here: the number of an event, and its id or the last before it.
        self._floor, self._floor_id = 0, ""
        self.position: EventId | None = None

    @property
    def mark(self) -> Cursor:
        """The place after the last event."""
        return Cursor(self._count, self.position)

    def restart(self, position: EventId | None) -> None:
        """Forgets everything: what comes now comes after `position`, and no older mark is covered."""
        self._updates.clear()
        self._matches.clear()
        self._bytes = 0
        self._count += 1
        self.position = position
        self._floor, self._floor_id = self._count, str(position or "")

    def advance(self, position: EventId) -> None:
        """Notes the number of the last event, also of one that isn't recorded."""
        self.position = position

    def record(self, update: Update) -> None:
        """Takes in the next event of a match."""
        self._count += 1
        update.number = self._count
        self._updates.append(update)
        self._matches[update.match].append(update)
        self._bytes += update.size + _OVERHEAD
        while self._bytes > self._limit:
            self._forget_oldest()

    def covers(self, mark: Cursor) -> bool:
        """Whether every event since `mark` is here."""
        return mark.number >= self._floor

    def has_news(self, match: str, mark: Cursor) -> bool:
        """Whether the match has an event since a mark that is covered."""
        updates = self._matches.get(match)
        return updates is not None and updates[-1].number > mark.number

    def since(self, match: str, mark: Cursor) -> list[Update] | None:
        """The match's events since `mark`; None if some are forgotten."""
        if not self.covers(mark):
            return None
        found = []
        for update in reversed(self._matches.get(match, ())):
            if update.number <= mark.number:
                break
            found.append(update)
        return found[::-1]

    def after(self, match: str, event_id: EventId) -> list[Update] | None:
        """The match's numbered events after `event_id`; None if some may be forgotten, or it isn't of this epoch."""
        floor = EventId.parse(self._floor_id) if self._floor_id else None
        if floor is None or event_id.epoch != floor.epoch or event_id < floor:
            return None
        found = []
        for update in reversed(self._matches.get(match, ())):
            if update.event_id is None:
                continue
            if EventId.parse(update.event_id) <= event_id:
                break
            found.append(update)
        return found[::-1]

    def _forget_oldest(self) -> None:
        update = self._updates.popleft()
        updates = self._matches[update.match]
        updates.popleft()
        if not updates:
            del self._matches[update.match]
        self._bytes -= update.size + _OVERHEAD
        self._floor, self._floor_id = update.number, update.event_id or self._floor_id
