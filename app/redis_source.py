"""Redis mode: pub/sub with the stream behind it. Losing Redis for a while costs delay, not events."""

import logging
import time
from typing import Any

import msgspec
from redis.exceptions import RedisError

from app.core.config import MUX_CHANNEL
from app.core.event import Event, EventId, decode
from app.core.names import EVENT_FIELD, RedisNames
from app.core.patience import POLL
from app.core.redis_client import TIMEOUT, async_client
from app.core.retry import Outage
from app.follower import Entry, Follower, Gap, Outcome
from app.redis_notifier import RedisNotifierService, Signal
from app.sink import Sink

logger = logging.getLogger(__name__)

_FIELD = EVENT_FIELD.encode()
_BATCH = 1000  # entries of one read


class RedisSource:
    """Follows the stream.

    Args:
        url: Redis.
        names: the names in it.
        canary_interval: seconds; after two without a message the stream is read.
        sink: where events go.
    """

    def __init__(self, url: str, names: RedisNames, canary_interval: float, sink: Sink) -> None:
        self._notifier = RedisNotifierService(url, names.events)
        self._reader = async_client(url)
        self._stream = names.log
        self._patience = 2 * canary_interval
        self._sink = sink
        self._follower = Follower()
        self._reading = Outage("Redis' stream", logger)
        self._heard_at = time.monotonic()
        self.canary_at: float | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the subscription is up and the stream could be read."""
        return self._notifier.is_connected and self._follower.position is not None and not self._reading.reason

    @property
    def outage(self) -> str | None:
        """Why it isn't."""
        return self._notifier.outage or self._reading.reason

    @property
    def position(self) -> EventId | None:
        """The last event delivered."""
        return self._follower.position

    async def run(self) -> None:
        """Follows the stream until cancelled."""
        self._notifier.open()
        try:
            async for message in self._notifier.messages():
                now = time.monotonic()
                if isinstance(message, bytes):
                    self._heard_at = now
                    self._emit(self._prompt(message), now)
                elif message is Signal.SUBSCRIBED or now - self._heard_at > self._patience:
                    self._heard_at = now
                    self._follower.look()
                elif message is Signal.LOST:
                    self._follower.interrupted()
                if self._follower.due(now) and message is not Signal.LOST:
                    await self._catch_up()
                self._notifier.tick = POLL if self._follower.behind else TIMEOUT
        finally:
            await self._notifier.disconnect()
            await self._reader.aclose()

    def _prompt(self, message: bytes) -> list[Outcome]:
        try:
            return self._follower.prompt(decode(message))
        except ValueError as error:
            logger.warning("what was published is not an event: %s", error)
            return []

    async def _catch_up(self) -> None:
        """Reads the stream until there is nothing more, or something is missing."""
        try:
            while self._follower.due(now := time.monotonic()):
                if self._follower.position is None:
                    self._emit(self._follower.start(await self._head()), now)
                entries = _entries(await self._reader.xrange(self._stream, f"({self._follower.position}", count=_BATCH))
                head = None if entries else await self._head()
                self._emit(self._follower.read(entries, head, now), now)
                if len(entries) == _BATCH:
                    self._follower.look()
        except (RedisError, OSError) as error:
            self._reading.failed(error)
            self._follower.interrupted()
        else:
            self._reading.over()

    async def _head(self) -> EventId | None:
        entries = _entries(await self._reader.xrevrange(self._stream, count=1))
        return entries[0].id if entries else None

    def _emit(self, outcomes: list[Outcome], now: float) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Gap):
                self._sink.gap(*outcome)
            elif outcome.channel != MUX_CHANNEL:
                self._sink.deliver(outcome)
            elif outcome.id is not None:
                self.canary_at = now


def _entries(answer: Any) -> list[Entry]:
    return [Entry(EventId.parse(key.decode()), _event(fields.get(_FIELD, b""), key.decode())) for key, fields in answer]


def _event(text: bytes, entry_id: str) -> Event:
    """The event in an entry; what isn't one stands as a nameless event, so that the count goes on."""
    try:
        return decode(text)
    except msgspec.DecodeError as error:
        logger.warning("the stream's entry %s is not an event: %s", entry_id, error)
        return Event(channel=MUX_CHANNEL, id=entry_id)
