"""Redis mode: events come by the feed of this pod's listener or by pub/sub; what is missed is read from the stream.

Without a listener in the pod, an outage of Redis delays events. None is lost that the stream still holds afterwards.
"""

import asyncio
import logging
import time
from itertools import pairwise
from math import inf
from typing import Any

import msgspec
from redis.exceptions import RedisError

from app.core.tasks import cancel_tasks
from app.sources.base import EventSink, SourceStatus
from app.sources.feed_follower import FeedFollower, ForeignFeedError, decode_all
from app.sources.listener_feed import ListenerFeed
from notifymux.event import MUX_CHANNEL, Event, EventId, decode
from notifymux.progress_timeout import POLL_SECONDS
from notifymux.reconnect import ReconnectState
from notifymux.redis_client import RedisAddress
from notifymux.redis_errors import fault
from notifymux.redis_keys import EVENT_FIELD, RedisNames
from notifymux.sequence_tracker import Gap, Outcome, SequenceTracker, StreamEvent
from notifymux.subscription import Signal, Subscription

logger = logging.getLogger(__name__)

_FIELD = EVENT_FIELD.encode()
_IDLE_SECONDS = 1.0  # the longest time without a look at whether the server was left
_BATCH_ENTRIES = 1000  # per read of the stream
_MAX_ENTRIES = 20_000  # read at most at the start, and for one client that resumes
_OTHERS = (
    "events arrive on %s that are not in this environment's stream: another environment publishes there too. Redis's "
    "pub/sub knows no database numbers; give each environment a REDIS_NAMESPACE of its own"
)


class RedisSource:
    """Delivers the events of the stream.

    Args:
        address: of Redis. It is tried anew after a silence, and left if a read shows that it leads to the wrong server.
        names: the names of the stream and the pub/sub channel.
        canary_interval: seconds. Twice this without a message is a silence, after which the stream is read too.
        recent_bytes: how many bytes of payloads are read at most at the start, to be replayed to clients.
        sink: receives the events.
    """

    def __init__(
        self, address: RedisAddress, names: RedisNames, canary_interval: float, recent_bytes: int, sink: EventSink
    ) -> None:
        self._subscription = Subscription(
            address, [names.direct, names.events], 2 * canary_interval, optional=names.direct
        )
        self._redis = self._subscription.client
        self._direct, self._events, self._stream = names.direct, names.events, names.log
        self._silence_seconds = 2 * canary_interval
        self._recent_bytes = recent_bytes
        self._is_reading_range = False
        self._sink = sink
        self._tracker = SequenceTracker()
        self._follower = FeedFollower(self._tracker)
        self._feed = ListenerFeed(names.log, self._follower, self._on_fed, self._on_feed_lost)
        self._is_spared = False  # the stream's channel is not heard
        self._channels_changed = asyncio.Event()
        self._reading = ReconnectState("Redis' stream", logger)
        self._received_at = time.monotonic()
        self._canary_at: float | None = None
        self._said_others = False

    def status(self) -> SourceStatus:
        """Return the current state. The source is connected if it follows the feed, or hears and reads the stream."""
        outage = self._subscription.state.reason or self._reading.reason
        is_fed = self._follower.is_followed
        return SourceStatus(
            is_connected=is_fed or (self._tracker.position is not None and outage is None),
            outage=outage,
            reconnects=self._subscription.state.reconnects,
            position=self._tracker.position,
            is_behind=self._tracker.needs_read and not is_fed,
            suppressed=self._tracker.suppressed,
            canary_at=self._canary_at,
            is_fed=is_fed,
            is_stream_behind=is_fed and self._follower.is_stream_behind,
        )

    async def run(self) -> None:
        """Deliver events until cancelled."""
        works = (self._feed.run(), self._look_at_the_stream(), self._choose_channels())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.gather(self._receive_published(), *tasks)
        finally:
            await cancel_tasks(tasks)
            await self._subscription.close()
            await self._redis.aclose()

    async def _receive_published(self) -> None:
        tracker = self._tracker
        async for received in self._subscription.messages():
            now = time.monotonic()
            if isinstance(received, list):
                self._received_at = now
                self._deliver(tracker.on_published(self._published(received)), now)
            elif received is Signal.SUBSCRIBED or self._is_silent(now):
                self._received_at = now
                tracker.request_read()
            elif received is Signal.LOST:
                tracker.interrupted()
                self._follower.redis_failed(now)
            if tracker.is_read_due(now) and received is not Signal.LOST:
                await self._catch_up()
            self._subscription.receive_timeout = POLL_SECONDS if tracker.needs_read else _IDLE_SECONDS

    def _published(self, texts: list[bytes]) -> list[Event]:
        """Return the events, without the copies of those that are heard on the other channel."""
        return [event for event in decode_all(texts) if not (event.is_copy and self._subscription.hears_all)]

    def _is_silent(self, now: float) -> bool:
        return not self._follower.is_followed and now - self._received_at > self._silence_seconds

    # The feed.

    def _on_fed(self, lines: list[bytes]) -> None:
        """Deliver what the feed brings."""
        try:
            self._deliver_fed(lines, time.monotonic())
        except ForeignFeedError as error:
            logger.warning("the feed of this pod's listener is left: %s", error)
            self._feed.leave()
        if (self._follower.is_paused or self._follower.is_behind) and self._feed.has_another:
            self._feed.leave()
        self._compare_channels()

    def _on_feed_lost(self) -> None:
        self._follower.lost()
        self._compare_channels()

    def _deliver_fed(self, lines: list[bytes], now: float) -> None:
        was_started = self._tracker.position is not None
        outcomes = self._follower.received(lines, now)
        if not was_started and self._tracker.position is not None:
            self._sink.start(self._tracker.position, [])
        self._deliver_outcomes(outcomes, now)

    def _compare_channels(self) -> None:
        """Have the channels changed, if others are needed now than those that are heard."""
        if self._is_spared != (self._follower.is_followed and self._subscription.hears_all):
            self._channels_changed.set()

    async def _choose_channels(self) -> None:
        """Hear the stream's channel only while the feed is not followed; what has no id is on the other channel."""
        while True:
            await self._channels_changed.wait()
            self._channels_changed.clear()
            is_spared = self._is_spared = self._follower.is_followed and self._subscription.hears_all
            self._subscription.silence_seconds = inf if is_spared else self._silence_seconds
            await self._subscription.hear([self._direct] if is_spared else [self._direct, self._events])

    async def _look_at_the_stream(self) -> None:
        """Look a few times a second whether the stream has what the feed did not bring."""
        while True:
            await asyncio.sleep(self._follower.look_seconds)
            if not self._follower.is_followed:
                continue
            try:
                head = await self._head()
                self._follower.looked(head, has_read_all=not self._feed.has_unread)
            except (RedisError, OSError) as error:
                self._reading.failed(str(fault(error)))
                self._follower.redis_failed(time.monotonic())
            else:
                self._reading.recovered()
            self._compare_channels()

    # The stream.

    async def _catch_up(self) -> None:
        """Read the stream until there is nothing more, or something is missing."""
        try:
            while self._tracker.is_read_due(now := time.monotonic()):
                if self._tracker.position is None:
                    await self._start()
                entries = await self._read(f"({self._tracker.position}")
                head = None if entries else await self._head()
                self._deliver_outcomes(self._tracker.read(entries, head, now), now)
                if len(entries) == _BATCH_ENTRIES:
                    self._tracker.request_read()
        except (RedisError, OSError) as error:
            self._reading.failed(str(fault(error)))
            self._tracker.interrupted()
            self._follower.redis_failed(time.monotonic())
        else:
            self._reading.recovered()
            self._follower.redis_answered()
        if self._tracker.hears_others and not self._said_others:
            self._said_others = True
            logger.warning(_OTHERS, self._events)

    async def _start(self) -> None:
        """Start at the stream's last entry, with the entries before it as the recent events."""
        newest_first: list[StreamEvent] = []
        before, size = "+", 0
        while len(newest_first) < _MAX_ENTRIES and size < self._recent_bytes:
            entries = _stream_events(await self._redis.xrevrange(self._stream, before, count=_BATCH_ENTRIES))
            kept = _contiguous(newest_first[-1:] + entries)[len(newest_first[-1:]) :]
            newest_first += kept
            size += sum(len(entry.event.payload) for entry in kept)
            if len(kept) < len(entries) or len(entries) < _BATCH_ENTRIES:
                break
            before = f"({kept[-1].id}"
        if self._tracker.position is not None:
            return  # the feed was followed meanwhile
        position = self._tracker.start(newest_first[0].id if newest_first else None)
        self._sink.start(position, [entry.event for entry in reversed(newest_first)])
        if newest_first:
            self._follower.delivered([newest_first[0].event])

    async def read_range(self, after: EventId, until: EventId) -> list[Event] | None:
        """Return the events after one id up to another of the same epoch, from the stream.

        None if the stream doesn't hold them all, if they are more than 20,000, if Redis can't be read, or while another
        range is read: many clients that resume at once must not overload Redis.
        """
        if self._is_reading_range or until.sequence - after.sequence > _MAX_ENTRIES:
            return None
        self._is_reading_range = True
        try:
            return await self._read_range(after, until)
        except (RedisError, OSError) as error:
            logger.debug("could not read the events after %s: %s", after, error)
            return None
        finally:
            self._is_reading_range = False

    async def _read_range(self, after: EventId, until: EventId) -> list[Event] | None:
        events: list[Event] = []
        at = after
        while at < until:
            entries = await self._read(f"({at}", str(until))
            if not entries:
                return None
            for entry in entries:
                if entry.id != at.next:
                    return None
                events.append(entry.event)
                at = entry.id
        return events

    async def _read(self, first: str, last: str = "+") -> list[StreamEvent]:
        return _stream_events(await self._redis.xrange(self._stream, first, last, count=_BATCH_ENTRIES))

    async def _head(self) -> EventId | None:
        entries = _stream_events(await self._redis.xrevrange(self._stream, count=1))
        return entries[0].id if entries else None

    def _deliver_outcomes(self, outcomes: list[Outcome], now: float) -> None:
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
            self._follower.delivered(events)
        if any(event.channel == MUX_CHANNEL and event.id is not None for event in events):
            self._canary_at = now


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
