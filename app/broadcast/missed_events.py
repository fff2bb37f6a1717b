"""The events that a client has missed while it was away."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.broadcast.load import Load
from app.broadcast.messages import Update, recovered
from app.broadcast.replay_buffer import ReplayBuffer
from app.broadcast.router import Router
from app.broadcast.row_queries import RowQueries
from app.broadcast.topic import Topic
from app.broadcast.update_queue import merged
from notifymux.event import Event, EventId
from notifymux.stream_reader import Take

CATCH_UP_SECONDS = 3.0  # that a worker may be behind another from which a client comes
_LOOKS = 100  # in this time, whether the worker has caught up
_MAX_RESUME_QUERIES = 50  # for a subscription that resumes; one that needs more starts from a snapshot

ReadRange = Callable[[EventId, EventId, Take], Awaitable[bool]]


class MissedEvents:
    """Finds the events after an id: in the replay buffer, or in the stream.

    Args:
        router: finds the topics of an event that is read back.
        buffer: the last events.
        read_range: reads events that the buffer has dropped, those after one id up to another, and hands them over in
            parts, until it is told that no more are wanted; returns whether all were handed over.
        rows: runs the queries of updates; None where no channel has one.
        max_bytes: of events that are read back for one subscription.
    """

    def __init__(
        self, router: Router, buffer: ReplayBuffer, read_range: ReadRange, rows: RowQueries | None, max_bytes: int
    ) -> None:
        self._router, self._buffer, self._read_range = router, buffer, read_range
        self._rows, self._max_bytes = rows, max_bytes

    async def fill(self, load: Load) -> None:
        """Fill a load with the events after its `last`, if it has one and all of them are to be had."""
        last = load.last
        if last is None or not await self._is_usable(load, last):
            return
        cursor = self._buffer.cursor
        updates = await self._after(load.topic, last)
        if updates is not None and not self._needs_too_many_queries(load, updates):
            load.recover(recovered(load.topic, last), last, updates, cursor)

    def is_before(self, event_id: EventId) -> bool:
        """Whether this worker has not received an event that it may receive yet."""
        position = self._buffer.position
        return position is None or position < event_id

    async def _is_usable(self, load: Load, last: EventId) -> bool:
        """Whether a client can continue after an id; one that has one position waits until this worker gets there."""
        if load.client.has_one_position and not await self._is_reached(load, last):
            return False
        position = self._buffer.position
        return position is not None and last.epoch == position.epoch  # there is a gap between two epochs

    async def _is_reached(self, load: Load, event_id: EventId) -> bool:
        for _ in range(_LOOKS):
            if not self.is_before(event_id) or not load.is_wanted:
                break
            await asyncio.sleep(CATCH_UP_SECONDS / _LOOKS)
        return not self.is_before(event_id)

    async def _after(self, topic: Topic, last: EventId) -> list[Update] | None:
        """Return the topic's events after `last` that this worker has received; None if some are not to be had."""
        position = self._buffer.position
        if position is None or last >= position:
            return []  # the client received it from a worker that is ahead of this one
        buffered = self._buffer.after(topic, last)
        return await self._read_back(topic, last, position) if buffered is None else buffered

    async def _read_back(self, topic: Topic, last: EventId, position: EventId) -> list[Update] | None:
        """Return the topic's events after `last` up to `position` from the stream; None as in `_after`."""
        before = self._buffer.cursor
        updates: list[Update] = []
        room = self._max_bytes  # no other client shares what is read, unlike a snapshot

        def take(events: list[Event]) -> bool:
            nonlocal room
            for event in events:
                update = self._router.route(event)
                if update and topic in update.topics:
                    updates.append(update)
                    room -= update.size
            return room >= 0

        if not await self._read_range(last, position, take):
            return None
        meanwhile = self._buffer.since(topic, before)
        fits = meanwhile is not None and sum(update.size for update in meanwhile) <= room
        return updates if fits else None

    def _needs_too_many_queries(self, load: Load, updates: Sequence[Update]) -> bool:
        if not self._rows:
            return False
        asked = merged(updates, load.claims)
        return len(self._rows.unfetched(load.topic, asked, load.claims)) > _MAX_RESUME_QUERIES
