"""A Redis pub/sub subscription that reconnects."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from enum import Enum, auto

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from notifymux.pubsub_parser import BatchParser
from notifymux.reconnect import ReconnectState
from notifymux.redis_client import TIMEOUT_SECONDS, async_client

logger = logging.getLogger(__name__)

# Clients wait for events meanwhile, and each second of delay adds to what the worker has to catch up on.
_MAX_RECONNECT_DELAY_SECONDS = 1.0


class Signal(Enum):
    """What `Subscription.messages` yields besides messages."""

    SUBSCRIBED = auto()  # subscribed, for the first time or again: earlier messages may have been missed
    SILENT = auto()  # no message arrived for `receive_timeout`
    LOST = auto()  # the connection is lost and will be replaced


class Subscription:
    """Receives what is published on one channel. Messages published while it is disconnected are missed.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        channel: the pub/sub channel.
    """

    def __init__(self, url: str, channel: str) -> None:
        self.client = async_client(url, parser_class=BatchParser)  # also for other commands; its owner closes it
        self._channel = channel
        self._pubsub: PubSub | None = None
        self._opening = asyncio.Lock()
        self._received_at = 0.0
        self._pinged_at: float | None = None  # when the ping was sent that has not been answered yet
        self.state = ReconnectState("Redis", logger, cap=_MAX_RECONNECT_DELAY_SECONDS)
        self.receive_timeout = TIMEOUT_SECONDS  # seconds without a message until `messages` yields SILENT

    async def open(self) -> None:
        """Connect and subscribe, unless that has been done already.

        Raises:
            redis.RedisError, OSError: Redis can't be reached or refuses.
        """
        async with self._opening:
            if self._pubsub:
                return
            pubsub = self.client.pubsub()
            try:
                await pubsub.subscribe(self._channel)
            except BaseException:  # also a cancellation: nobody else would close it
                await pubsub.aclose()  # type: ignore[no-untyped-call]
                raise
            self._pubsub = pubsub
            self._received_at, self._pinged_at = time.monotonic(), None

    async def close(self) -> None:
        """Unsubscribe. `open` and `messages` subscribe again.

        A task that iterates `messages` has to be ended first: redis-py reconnects a closed PubSub while a task reads
        from it, and nothing would close that connection.
        """
        pubsub, self._pubsub = self._pubsub, None
        if pubsub:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def messages(self) -> AsyncIterator[list[bytes] | Signal]:
        """Yield all messages of one read at once, in order, and signals between them. Reconnects until cancelled."""
        while True:
            try:
                if self.state.reason:
                    await self.close()
                await self.open()
                while self._pubsub:
                    yield await self._receive(self._pubsub)
            except (RedisError, OSError) as error:
                delay = self.state.failed(error)
                yield Signal.LOST
                await asyncio.sleep(delay)

    async def _receive(self, pubsub: PubSub) -> list[bytes] | Signal:
        while True:
            message = await pubsub.get_message(timeout=self.receive_timeout)
            now = time.monotonic()
            if message is None:
                await self._check_connection(pubsub, now)
                return Signal.SILENT
            self._received_at, self._pinged_at = now, None
            match message["type"]:
                case "message":
                    texts: list[bytes] = message["data"]
                    return texts
                case "subscribe":
                    self.state.recovered()
                    return Signal.SUBSCRIBED

    async def _check_connection(self, pubsub: PubSub, now: float) -> None:
        """Send a ping after a silence, so that a dead connection is noticed."""
        if self._pinged_at is None:
            if now - self._received_at >= TIMEOUT_SECONDS:
                self._pinged_at = now
                await pubsub.ping()
        elif now - self._pinged_at >= 2 * TIMEOUT_SECONDS:
            raise RedisConnectionError("a ping was not answered")
