"""Redis mode: events come by the feed of this pod's listener or by pub/sub; what is missed is read from the stream.

Without a listener in the pod, an outage of Redis delays events. None is lost that the stream still holds afterwards.
"""

import asyncio
import logging
import time
from math import inf

from redis.exceptions import RedisError

from app.core.tasks import cancel_tasks
from app.sources.base import EventSink, SourceStatus
from app.sources.feed_follower import FeedFollower, ForeignFeedError
from app.sources.listener_feed import ListenerFeed
from notifymux.event import MUX_CHANNEL, Event, EventId
from notifymux.redis_client import RedisAddress
from notifymux.redis_errors import fault
from notifymux.redis_keys import RedisNames
from notifymux.sequence_tracker import Gap, SequenceTracker, runs
from notifymux.stream_follower import Contact, Start, StreamFollower
from notifymux.stream_reader import Take
from notifymux.subscription import Subscription

logger = logging.getLogger(__name__)


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
        self._direct, self._events = names.direct, names.events
        self._silence_seconds = 2 * canary_interval
        self._is_reading_range = False
        self._sink = sink
        self._tracker = SequenceTracker()
        self._stream = StreamFollower(self._subscription, names, self._tracker, recent_bytes)
        self._follower = FeedFollower(self._tracker)
        self._feed = ListenerFeed(names.log, self._follower, self._on_fed, self._on_feed_lost)
        self._is_spared = False  # the stream's channel is not heard
        self._channels_changed = asyncio.Event()
        self._canary_at: float | None = None

    def status(self) -> SourceStatus:
        """Return the current state. The source is connected if it follows the feed, or hears and reads the stream."""
        outage = self._subscription.state.reason or self._stream.state.reason
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
        works = (self._follow(), self._feed.run(), self._look_at_the_stream(), self._choose_channels())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_tasks(tasks)  # all of them: one that goes on would open another connection
            await self._subscription.close()
            await self._redis.aclose()

    async def _follow(self) -> None:
        async for item in self._stream.items():
            if isinstance(item, list):
                self._deliver(item)
            elif isinstance(item, Gap):
                self._sink.gap(*item)
            elif isinstance(item, Start):
                self._sink.start(*item)
                self._follower.delivered(item.recent[-1:])
            elif item is Contact.LOST:
                self._follower.redis_failed(time.monotonic())
            else:
                self._follower.redis_answered()

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
        for item in runs(outcomes):
            if isinstance(item, Gap):
                self._sink.gap(*item)
            else:
                self._deliver(item)

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
                head = await self._stream.reader.head()
                self._follower.looked(head, has_read_all=not self._feed.has_unread)
            except (RedisError, OSError) as error:
                self._stream.state.failed(str(fault(error)))
                self._follower.redis_failed(time.monotonic())
            else:
                self._stream.state.recovered()
            self._compare_channels()

    async def read_range(self, after: EventId, until: EventId, take: Take) -> bool:
        """Hand over the events after one id up to another of the same epoch, from the stream.

        Return False, with some of them handed over, if the stream doesn't hold them all, if they are more than 20,000,
        if `take` wants no more, if Redis can't be read, or while another range is read: many clients that resume at
        once must not overload Redis.
        """
        if self._is_reading_range:
            return False
        self._is_reading_range = True
        try:
            return await self._stream.reader.between(after, until, take)
        except (RedisError, OSError) as error:
            logger.debug("could not read the events after %s: %s", after, error)
            return False
        finally:
            self._is_reading_range = False

    def _deliver(self, events: list[Event]) -> None:
        self._sink.deliver(events)
        self._follower.delivered(events)
        for event in events:
            if event.channel == MUX_CHANNEL and event.id is not None:
                self._canary_at = time.monotonic()
                break
