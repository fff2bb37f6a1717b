"""Reads the stream: its entries as events with their ids."""

import logging
from itertools import pairwise
from typing import Any

import msgspec
from redis.asyncio import Redis

from notifymux.event import MUX_CHANNEL, Event, EventId, decode
from notifymux.redis_keys import EVENT_FIELD
from notifymux.sequence_tracker import StreamEvent

logger = logging.getLogger(__name__)

BATCH_ENTRIES = 1000  # per read
_MAX_ENTRIES = 20_000  # of `newest` and `between`
_FIELD = EVENT_FIELD.encode()


class StreamReader:
    """Reads one stream. Its methods raise redis.RedisError or OSError if Redis can't be read.

    Args:
        client: for an event loop; its owner closes it.
        stream: the stream's key.
    """

    def __init__(self, client: Redis, stream: str) -> None:
        self._redis, self._stream = client, stream

    async def after(self, position: EventId, until: EventId | None = None) -> list[StreamEvent]:
        """Return the entries after an id, up to another: at most `BATCH_ENTRIES`."""
        last = "+" if until is None else str(until)
        return _stream_events(await self._redis.xrange(self._stream, f"({position}", last, count=BATCH_ENTRIES))

    async def head(self) -> EventId | None:
        """Return the id of the last entry; None if there is none."""
        entries = _stream_events(await self._redis.xrevrange(self._stream, count=1))
        return entries[0].id if entries else None

    async def newest(self, max_bytes: int) -> list[StreamEvent]:
        """Return the last entries without a gap before them, newest first, as far as their payloads take `max_bytes`.

        If there is any entry, the last one is among them. They are 20,000 at most.
        """
        newest_first: list[StreamEvent] = []
        count = BATCH_ENTRIES if max_bytes else 1
        before, size, is_complete = "+", 0, False
        while not is_complete:
            entries = _stream_events(await self._redis.xrevrange(self._stream, before, count=count))
            kept = _contiguous(newest_first[-1:] + entries)[len(newest_first[-1:]) :]
            newest_first += kept
            size += sum(len(entry.event.payload) for entry in kept)
            is_complete = len(kept) < BATCH_ENTRIES or size >= max_bytes or len(newest_first) >= _MAX_ENTRIES
            before = f"({newest_first[-1].id}" if newest_first else "+"
        return newest_first

    async def between(self, after: EventId, until: EventId) -> list[Event] | None:
        """Return the events after one id up to another of the same epoch.

        None if the stream doesn't hold them all, or if they are more than 20,000.
        """
        if until.sequence - after.sequence > _MAX_ENTRIES:
            return None
        events: list[Event] = []
        at = after
        while at < until:
            entries = await self.after(at, until)
            if not entries:
                return None
            for entry in entries:
                if entry.id != at.next:
                    return None
                events.append(entry.event)
                at = entry.id
        return events


def _contiguous(newest_first: list[StreamEvent]) -> list[StreamEvent]:
    """Return the entries up to the first gap, or to the end of another epoch."""
    for number, (newer, older) in enumerate(pairwise(newest_first), 1):
        if newer.id != older.id.next:
            return newest_first[:number]
    return newest_first


def _stream_events(entries: Any) -> list[StreamEvent]:
    return [_stream_event(key.decode(), fields) for key, fields in entries]


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
