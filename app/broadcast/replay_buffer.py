"""The last events of a worker, by topic: clients that reconnect get what they missed from here."""

from collections import defaultdict, deque
from collections.abc import Callable
from itertools import takewhile
from typing import NamedTuple

from app.broadcast.messages import Update
from app.broadcast.topic import Topic
from notifymux.event import EventId

_OVERHEAD_BYTES = 400  # memory of an update besides its payload, for each of its topics


class Cursor(NamedTuple):
    """A place in the buffer, between two events."""

    serial: int  # of the last event before it
    position: EventId | None  # the last id before it; None where events have no ids


class ReplayBuffer:
    """The newest events, without a gap, in the order in which they were received.

    Each event gets a serial number. Unlike ids, which an event that was published directly doesn't have, serials give
    every event a place.

    Args:
        limit: bytes to keep; the oldest events are dropped.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._serial = 0
        self._updates: deque[Update] = deque()
        self._topics: defaultdict[Topic, deque[Update]] = defaultdict(deque)
        # Everything after these is here: a serial; and an id, which is that of the last dropped update that has one, or
        # else the position at the restart. The update is kept because its id is parsed only if a client reconnects.
        self._floor = 0
        self._dropped: Update | None = None
        self._restarted_at: EventId | None = None
        # The id of the last event, which the hub sets: that may be an event without a topic, which is not recorded.
        self.position: EventId | None = None

    @property
    def cursor(self) -> Cursor:
        """The place after the last event."""
        return Cursor(self._serial, self.position)

    def restart(self, position: EventId | None) -> None:
        """Drop everything, also all places: the next event comes after `position`, with a gap before it."""
        self._updates.clear()
        self._topics.clear()
        self._bytes = 0
        self._serial += 1  # so that not even the place after the last event is contained any more
        self._floor, self._dropped = self._serial, None
        self._restarted_at = self.position = position

    def record(self, update: Update) -> None:
        """Add the next event."""
        self._serial += 1
        update.serial = self._serial
        self._updates.append(update)
        for topic in update.topics:
            self._topics[topic].append(update)
        self._bytes += update.size + _OVERHEAD_BYTES * len(update.topics)
        self._drop_beyond_limit()

    def resize(self, update: Update, size: int) -> None:
        """Count an update with another size from now on, if it is still here."""
        if update.serial > self._floor:
            self._bytes += size - update.size
            update.size = size
            self._drop_beyond_limit()

    def contains(self, cursor: Cursor) -> bool:
        """Whether every event since this place is here."""
        return cursor.serial >= self._floor

    def has_newer(self, topic: Topic, cursor: Cursor) -> bool:
        """Whether the topic has an event since a place that is contained."""
        updates = self._topics.get(topic)
        return updates is not None and updates[-1].serial > cursor.serial

    def since(self, topic: Topic, cursor: Cursor) -> list[Update] | None:
        """Return the topic's events since this place; None if it is not contained."""
        return self._newest(topic, lambda update: update.serial > cursor.serial) if self.contains(cursor) else None

    def after(self, topic: Topic, event_id: EventId) -> list[Update] | None:
        """Return the topic's events with a later id; None if some may be dropped, or the id is of another epoch."""
        floor = self._dropped.parsed_id if self._dropped else self._restarted_at
        if floor is None or event_id.epoch != floor.epoch or event_id < floor:
            return None
        newest = self._newest(topic, lambda update: update.parsed_id is None or update.parsed_id > event_id)
        return [update for update in newest if update.event_id is not None]

    def _newest(self, topic: Topic, is_newer: Callable[[Update], bool]) -> list[Update]:
        newest_first = takewhile(is_newer, reversed(self._topics.get(topic, ())))
        return list(newest_first)[::-1]

    def _drop_beyond_limit(self) -> None:
        while self._bytes > self._limit:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        update = self._updates.popleft()
        for topic in update.topics:
            updates = self._topics[topic]
            updates.popleft()
            if not updates:
                del self._topics[topic]
        self._bytes -= update.size + _OVERHEAD_BYTES * len(update.topics)
        self._floor = update.serial
        if update.event_id is not None:
            self._dropped = update
