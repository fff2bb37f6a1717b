"""Reads the stream: its entries as events with their ids."""

import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from notifymux.event import MUX_CHANNEL, Event, EventId, decode
from notifymux.page_size import PageSize
from notifymux.redis_keys import EVENT_FIELD
from notifymux.sequence_tracker import StreamEvent

logger = logging.getLogger(__name__)

_MAX_ENTRIES = 20_000  # of `newest` and `between`
_FIELD = EVENT_FIELD.encode()

Take = Callable[[list[Event]], bool]  # takes events; returns whether it wants more


class Page(NamedTuple):
    """Consecutive entries of the stream."""

    entries: list[StreamEvent]
    is_full: bool  # there may be more


class StreamReader:
    """Reads one stream. Its methods raise redis.RedisError or OSError if Redis can't be read.

    Args:
        client: for an event loop; its owner closes it.
        stream: the stream's key.
    """

    def __init__(self, client: Redis, stream: str) -> None:
        self._redis, self._stream = client, stream

    async def after(self, position: EventId, size: PageSize, until: EventId | None = None) -> Page:
        """Return the first entries after an id, up to another: one page."""
        count, last = size.entries, "+" if until is None else str(until)
        found = await self._redis.xrange(self._stream, f"({position}", last, count=count)
        return _page(found, count, size)

    async def head(self) -> EventId | None:
        """Return the id of the last entry; None if there is none."""
        found: Any = await self._redis.xrevrange(self._stream, count=1)
        return EventId.parse(found[0][0].decode()) if found else None

    async def newest(self, max_bytes: int) -> list[StreamEvent]:
        """Return the last entries without a gap before them, newest first, as far as their payloads take `max_bytes`.

        If there is any entry, the last one is among them. They are 20,000 at most.
        """
        newest_first: list[StreamEvent] = []
        page_size = PageSize()
        before, size, is_complete = "+", 0, False
        while not is_complete:
            count = page_size.entries if max_bytes else 1
            found = await self._redis.xrevrange(self._stream, before, count=count)
            page = _page(found, count, page_size)
            kept = _contiguous(newest_first[-1:] + page.entries)[len(newest_first[-1:]) :]
            newest_first += kept
            size += sum(len(entry.event.payload) for entry in kept)
            is_complete = len(kept) < count or size >= max_bytes or len(newest_first) >= _MAX_ENTRIES
            before = f"({newest_first[-1].id}" if newest_first else "+"
        return newest_first

    async def between(self, after: EventId, until: EventId, take: Take) -> bool:
        """Hand over the events after one id up to another of the same epoch, page by page.

        Return False, with some of them handed over, if the stream doesn't hold them all, if they are more than 20,000,
        or if `take` wants no more.
        """
        if until.sequence - after.sequence > _MAX_ENTRIES:
            return False
        at, size = after, PageSize()
        while at < until:
            entries = (await self.after(at, size, until)).entries
            following = [EventId(at.epoch, at.sequence + n) for n in range(1, len(entries) + 1)]
            if not entries or [entry.id for entry in entries] != following:
                return False
            if not take([entry.event for entry in entries]):
                return False
            at = entries[-1].id
        return True


def _contiguous(newest_first: list[StreamEvent]) -> list[StreamEvent]:
    """Return the entries up to the first gap, or to the end of another epoch."""
    for number, (newer, older) in enumerate(pairwise(newest_first), 1):
        if newer.id != older.id.next:
            return newest_first[:number]
    return newest_first


def _page(found: Any, count: int, size: PageSize) -> Page:
    size.learn([len(fields.get(_FIELD, b"")) for _, fields in found])
    return Page([_stream_event(key.decode(), fields) for key, fields in found], len(found) == count)


def _stream_event(entry_id: str, fields: dict[bytes, bytes]) -> StreamEvent:
    """Parse an entry. One that holds no event becomes an event on the project's own channel, which no client receives.

    This way it doesn't look like a missing event.
    """
    try:
        event = decode(fields.get(_FIELD, b""))
    except msgspec.DecodeError as error:
        logger.warning("the stream's entry %s is not an event: %s", entry_id, error)
        event = Event(channel=MUX_CHANNEL, id=entry_id)
        return StreamEvent(EventId.parse(entry_id), event, is_event=False)
    return StreamEvent(EventId.parse(entry_id), event, is_event=event.id == entry_id)
