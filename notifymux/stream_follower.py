"""Follows the stream: every event once and in order, or a gap (rule 13 of docs/numbering.md).

Events come by pub/sub; what is missed is read from the stream. The workers follow it so (`app.sources.redis`), and so
does `notifymux.follow`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from enum import Enum, auto
from typing import NamedTuple

from redis.exceptions import RedisError

from notifymux.event import Event, EventId, decode_all
from notifymux.page_size import PageSize
from notifymux.progress_timeout import POLL_SECONDS
from notifymux.reconnect import ReconnectState
from notifymux.redis_errors import fault
from notifymux.redis_keys import RedisNames
from notifymux.sequence_tracker import Gap, SequenceTracker, runs
from notifymux.stream_reader import StreamReader
from notifymux.subscription import Signal, Subscription

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0  # the longest time without a look at whether the server was left
_OTHERS = (
    "events arrive on %s that are not in this environment's stream: another environment publishes there too. Redis's "
    "pub/sub knows no database numbers; give each environment a REDIS_NAMESPACE of its own"
)


class Start(NamedTuple):
    """The stream is followed from `position` on, its last id. `recent` are the last events up to there, without a gap.

    The position is 0-0 if the stream is empty.
    """

    position: EventId
    recent: list[Event]


class Contact(Enum):
    """Whether Redis answers."""

    ANSWERED = auto()  # the stream was read up to its end, or up to what is waited for
    LOST = auto()  # the subscription was lost, or the stream can't be read


Item = list[Event] | Gap | Start | Contact  # a list has at least one event


class StreamFollower:
    """Follows one stream.

    Args:
        subscription: to the channel on which the stream's events are published; its owner closes it.
        names: the names of the stream and the channel.
        tracker: where to follow the stream from. One without a position starts at the stream's last entry.
        recent_bytes: how many bytes of payloads are read at most for `Start`.
    """

    def __init__(
        self, subscription: Subscription, names: RedisNames, tracker: SequenceTracker, recent_bytes: int = 0
    ) -> None:
        self._subscription, self._channel, self._tracker = subscription, names.events, tracker
        self._recent_bytes = recent_bytes
        self._said_others = False
        self._page_size = PageSize()
        self.reader = StreamReader(subscription.client, names.log)
        self.state = ReconnectState("Redis' stream", logger)

    async def items(self) -> AsyncGenerator[Item, None]:
        """Yield what happens, until cancelled or closed.

        While the caller handles an item, nothing is received and nothing is kept.
        """
        tracker, subscription = self._tracker, self._subscription
        received_at = time.monotonic()
        async with aclosing(subscription.messages()) as messages:
            async for received in messages:
                now = time.monotonic()
                if isinstance(received, list):
                    received_at = now
                    if events := tracker.on_published(self._published(received)):
                        yield events
                else:
                    _raise_if_cancelled()
                    if received is Signal.LOST:
                        tracker.interrupted()
                        yield Contact.LOST
                    elif received is Signal.SUBSCRIBED or now - received_at > subscription.silence_seconds:
                        received_at = now
                        tracker.request_read()
                if tracker.is_read_due(now) and received is not Signal.LOST:
                    async with aclosing(self._catch_up()) as items:
                        async for item in items:
                            yield item
                subscription.receive_timeout = POLL_SECONDS if tracker.needs_read else _IDLE_SECONDS

    def _published(self, texts: list[bytes]) -> list[Event]:
        """Return the events, without the copies of those that are heard on the other channel."""
        return [event for event in decode_all(texts) if not (event.is_copy and self._subscription.hears_all)]

    async def _catch_up(self) -> AsyncGenerator[Item, None]:
        """Read the stream until there is nothing more, or something is missing."""
        try:
            while self._tracker.is_read_due(time.monotonic()):
                position = self._tracker.position
                items = await (self._start() if position is None else self._read(position))
                _raise_if_cancelled()
                for item in items:
                    yield item
        except (RedisError, OSError) as error:
            self.state.failed(str(fault(error)))
            self._tracker.interrupted()
            yield Contact.LOST
        else:
            self.state.recovered()
            yield Contact.ANSWERED
        if self._tracker.hears_others and not self._said_others:
            self._said_others = True
            logger.warning(_OTHERS, self._channel)

    async def _start(self) -> list[Start]:
        """Start at the stream's last entry."""
        newest_first = await self.reader.newest(self._recent_bytes)
        if self._tracker.position is not None:
            return []  # a feed was followed meanwhile
        position = self._tracker.start(newest_first[0].id if newest_first else None)
        return [Start(position, [entry.event for entry in reversed(newest_first)])]

    async def _read(self, position: EventId) -> Iterable[list[Event] | Gap]:
        """Read the next entries."""
        entries, is_full = await self.reader.after(position, self._page_size)
        head = None if entries else await self.reader.head()
        outcomes = self._tracker.read(entries, head, time.monotonic())
        if is_full:
            self._tracker.request_read()
        else:
            self._page_size = PageSize()  # what is read next may be larger
        return runs(outcomes)


def _raise_if_cancelled() -> None:
    """Raise a cancellation that was swallowed: Python 3.11's `wait_for` does so, by which redis-py sends commands."""
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
