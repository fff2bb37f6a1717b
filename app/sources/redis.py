"""Redis mode: pub/sub with the stream behind it. Losing Redis for a while costs delay, not events."""

import logging
import time
from itertools import pairwise
from typing import Any

import msgspec
from redis.exceptions import RedisError

from app.core.config import MUX_CHANNEL
from app.core.progress_timeout import POLL_SECONDS
from app.core.redis_keys import EVENT_FIELD, RedisNames
from app.sources.base import EventSink
from app.sources.sequence_tracker import Gap, Outcome, SequenceTracker, StreamEvent
from notifymux.event import Event, EventId, decode
from notifymux.outage import Outage
from notifymux.redis_client import TIMEOUT_SECONDS
from notifymux.subscription import Signal, Subscription

logger = logging.getLogger(__name__)

_FIELD = EVENT_FIELD.encode()
_BATCH = 1000  # entries of one read
_RECENT = 20_000  # entries that are read at most, at start and for one client that comes back


class RedisSource:
    """Follows the stream.

    Args:
        url: Redis.
        names: the names in it.
        canary_interval: seconds; after two without a message the stream is read.
        recent_bytes: how much is read back at most at start.
        sink: where events go.
    """

    def __init__(self, url: str, names: RedisNames, canary_interval: float, recent_bytes: int, sink: EventSink) -> None:
        self._subscription = Subscription(url, names.events)
        self._redis = self._subscription.client
        self._stream = names.log
        self._patience = 2 * canary_interval
        self._recent_bytes = recent_bytes
        self._recalling = False
        self._sink = sink
        self._follower = SequenceTracker()
        self._reading = Outage("Redis' stream", logger)
        self._heard_at = time.monotonic()
        self.canary_at: float | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the subscription is up and the stream could be read."""
        return self._follower.position is not None and self.outage is None

    @property
    def outage(self) -> str | None:
        """Why it isn't."""
        return self._subscription.state.reason or self._reading.reason

    @property
    def position(self) -> EventId | None:
        """The last event delivered."""
        return self._follower.position

    @property
    def behind(self) -> bool:
        """Whether the stream is to be read."""
        return self._follower.behind

    @property
    def suppressed(self) -> int:
        """Events that were not delivered again."""
        return self._follower.suppressed

    @property
    def reconnects(self) -> int:
        """How often Redis was away and came back."""
        return self._subscription.state.recoveries

    async def run(self) -> None:
        """Follows the stream until cancelled."""
        try:
            async for message in self._subscription.messages():
                now = time.monotonic()
                if isinstance(message, list):
                    self._heard_at = now
                    self._deliver(self._follower.prompt(_published(message)), now)
                elif message is Signal.SUBSCRIBED or now - self._heard_at > self._patience:
                    self._heard_at = now
                    self._follower.look()
                elif message is Signal.LOST:
                    self._follower.interrupted()
                if self._follower.due(now) and message is not Signal.LOST:
                    await self._catch_up()
                self._subscription.receive_timeout = POLL_SECONDS if self._follower.behind else TIMEOUT_SECONDS
        finally:
            await self._subscription.close()
            await self._redis.aclose()

    async def _catch_up(self) -> None:
        """Reads the stream until there is nothing more, or something is missing."""
        try:
            while self._follower.due(now := time.monotonic()):
                if self._follower.position is None:
                    await self._start()
                entries = _entries(await self._redis.xrange(self._stream, f"({self._follower.position}", count=_BATCH))
                head = None if entries else await self._head()
                self._emit(self._follower.read(entries, head, now), now)
                if len(entries) == _BATCH:
                    self._follower.look()
        except (RedisError, OSError) as error:
            self._reading.failed(error)
            self._follower.interrupted()
        else:
            self._reading.over()

    async def _start(self) -> None:
        """Takes the stream's head as the place to go on from, and the last entries before it as what is remembered."""
        newest_first: list[StreamEvent] = []
        before, size = "+", 0
        while len(newest_first) < _RECENT and size < self._recent_bytes:
            entries = _entries(await self._redis.xrevrange(self._stream, before, count=_BATCH))
            kept = _contiguous(newest_first[-1:] + entries)[len(newest_first[-1:]) :]
            newest_first += kept
            size += sum(len(entry.event.payload) for entry in kept)
            if len(kept) < len(entries) or len(entries) < _BATCH:
                break
            before = f"({kept[-1].id}"
        position = self._follower.start(newest_first[0].id if newest_first else None)
        self._sink.start(position, [entry.event for entry in reversed(newest_first)])

    async def recall(self, after: EventId, until: EventId) -> list[Event] | None:
        """The events after one number up to another of its epoch, from the stream.

        None if the stream doesn't hold them all, if they are more than 20,000, if Redis is away, or if another
        recall is under way: a crowd that has been away for long must not read Redis dry.
        """
        if self._recalling or until.sequence - after.sequence > _RECENT:
            return None
        self._recalling = True
        try:
            return await self._read_range(after, until)
        except (RedisError, OSError) as error:
            logger.debug("could not read back to %s: %s", after, error)
            return None
        finally:
            self._recalling = False

    async def _read_range(self, after: EventId, until: EventId) -> list[Event] | None:
        events: list[Event] = []
        at = after
        while at < until:
            entries = _entries(await self._redis.xrange(self._stream, f"({at}", str(until), count=_BATCH))
            expected = [EventId(at.epoch, at.sequence + number) for number in range(1, len(entries) + 1)]
            if not entries or [entry.id for entry in entries] != expected:
                return None
            events += [entry.event for entry in entries]
            at = entries[-1].id
        return events

    async def _head(self) -> EventId | None:
        entries = _entries(await self._redis.xrevrange(self._stream, count=1))
        return entries[0].id if entries else None

    def _emit(self, outcomes: list[Outcome], now: float) -> None:
        events: list[Event] = []
        for outcome in outcomes:
            if isinstance(outcome, Gap):
                self._deliver(events, now)
                events = []
                self._sink.gap(*outcome)
            else:
                events.append(outcome)
        self._deliver(events, now)

    def _deliver(self, events: list[Event], now: float) -> None:
        if events:
            self._sink.deliver(events)
        if any(event.channel == MUX_CHANNEL and event.id is not None for event in events):
            self.canary_at = now


def _published(texts: list[bytes]) -> list[Event]:
    events = []
    for text in texts:
        try:
            events.append(decode(text))
        except ValueError as error:
            logger.warning("what was published is not an event: %s", error)
    return events


def _contiguous(newest_first: list[StreamEvent]) -> list[StreamEvent]:
    """The entries up to the first hole, or to where another epoch ends."""
    for number, (newer, older) in enumerate(pairwise(newest_first), 1):
        if newer.id != EventId(older.id.epoch, older.id.sequence + 1):
            return newest_first[:number]
    return newest_first


def _entries(answer: Any) -> list[StreamEvent]:
    return [
        StreamEvent(EventId.parse(key.decode()), _event(fields.get(_FIELD, b""), key.decode()))
        for key, fields in answer
    ]


def _event(text: bytes, entry_id: str) -> Event:
    """The event in an entry; what isn't one stands as a nameless event, so that the count goes on."""
    try:
        return decode(text)
    except msgspec.DecodeError as error:
        logger.warning("the stream's entry %s is not an event: %s", entry_id, error)
        return Event(channel=MUX_CHANNEL, id=entry_id)
