"""A Redis pub/sub subscription that reconnects, and goes where its server's address leads."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection
from enum import Enum, auto
from itertools import count
from typing import Any

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from notifymux.pubsub_parser import BatchParser
from notifymux.reconnect import ReconnectState
from notifymux.redis_client import RedisAddress, async_client
from notifymux.redis_errors import fault
from notifymux.sync_connection import TIMEOUT_SECONDS

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 10.0  # without a message; where a listener publishes there is one every CANARY_INTERVAL

# Clients wait for events meanwhile, and each second of delay adds to what the worker has to catch up on.
_MAX_RECONNECT_DELAY_SECONDS = 0.5


class Signal(Enum):
    """What `Subscription.messages` yields besides messages."""

    SUBSCRIBED = auto()  # subscribed, for the first time or again: earlier messages may have been missed
    SILENT = auto()  # no message arrived for `receive_timeout`
    LOST = auto()  # the connection is lost and will be replaced


class Subscription:
    """Receives what is published on some channels. Messages published while it is disconnected are missed.

    A server that answers may no longer be the one that is published to: its address leads elsewhere since. After a
    silence the subscription is therefore moved to a new connection, without missing or repeating a message. It is also
    replaced when another connection learns that the server is the wrong one (`RedisAddress.leave`).

    Args:
        address: of Redis.
        channels: the pub/sub channels.
        silence_seconds: the time without a message after which the address is tried again.
        optional: one of them, which is left out where Redis does not permit it.
    """

    def __init__(
        self, address: RedisAddress, channels: Collection[str], silence_seconds: float, optional: str | None = None
    ) -> None:
        self.client = async_client(address, parser_class=BatchParser)  # also for other commands; its owner closes it
        self._address, self._channels, self.silence_seconds = address, frozenset(channels), silence_seconds
        self._optional, self._is_optional_forbidden = optional, False
        self._pubsub: PubSub | None = None
        self._subscribing: asyncio.Task[PubSub] | None = None  # opens a second one, after a silence
        self._successor: PubSub | None = None  # it, subscribed, to be used once the current one has nothing left
        self._last_pings = count(1)
        self._last_ping = b""  # of the current one: what its answer contains
        self._last_ping_at = 0.0
        self._opening = asyncio.Lock()
        self._received_at = self._message_at = 0.0
        self._pinged_at: float | None = None  # when the ping was sent that has not been answered yet
        self.state = ReconnectState("Redis", logger, cap=_MAX_RECONNECT_DELAY_SECONDS)
        self.receive_timeout = TIMEOUT_SECONDS  # seconds without a message until `messages` yields SILENT

    async def open(self) -> None:
        """Connect and subscribe, unless that has been done already.

        Raises:
            redis.RedisError, OSError: Redis can't be reached or refuses.
        """
        async with self._opening:
            if self._pubsub is None:
                self._use(await self._subscribe())

    @property
    def hears_all(self) -> bool:
        """Whether Redis permits the optional channel, as far as is known."""
        return not self._is_optional_forbidden

    async def hear(self, channels: Collection[str]) -> None:
        """Change the channels. `messages` yields SUBSCRIBED for each new one."""
        if self._is_optional_forbidden:
            channels = set(channels) - {self._optional}
        added, dropped = set(channels) - self._channels, self._channels - set(channels)
        if not added and not dropped:
            return
        self._channels = frozenset(channels)
        await self._drop_successor()
        try:
            if self._pubsub and added:
                await self._pubsub.subscribe(*added)
            if self._pubsub and dropped:
                await self._pubsub.unsubscribe(*dropped)
        except (RedisError, OSError) as error:
            logger.debug("the channels change with the next connection: %s", error)  # which `messages` opens

    async def _subscribe(self) -> PubSub:
        pubsub = self.client.pubsub()
        try:
            await pubsub.subscribe(*self._channels)
        except BaseException:  # also a cancellation: nobody else would close it
            await pubsub.aclose()  # type: ignore[no-untyped-call]
            raise
        return pubsub

    def _use(self, pubsub: PubSub) -> None:
        self._pubsub, self._pinged_at = pubsub, None
        self._received_at = self._message_at = time.monotonic()

    async def close(self) -> None:
        """Unsubscribe. `open` and `messages` subscribe again.

        A task that iterates `messages` has to be ended first: redis-py reconnects a closed PubSub while a task reads
        from it, and nothing would close that connection.
        """
        pubsub, self._pubsub = self._pubsub, None
        await self._drop_successor()
        if pubsub:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def messages(self) -> AsyncGenerator[list[bytes] | Signal, None]:
        """Yield all messages of one read at once, in order, and signals between them. Reconnects until cancelled."""
        while True:
            try:
                if self.state.reason or not self._is_current:
                    await self.close()
                await self.open()
                while self._pubsub and self._is_current:
                    yield await self._receive(self._pubsub)
            except (RedisError, OSError) as error:
                if isinstance(error, NoPermissionError) and self._optional in self._channels:
                    logger.warning("Redis forbids the channel %s: give its user the right &%s", *[self._optional] * 2)
                    self._is_optional_forbidden = True
                    self._channels -= {self._optional}
                    await self.close()
                    continue
                delay = self.state.failed(str(fault(error)))
                yield Signal.LOST
                await asyncio.sleep(delay)

    @property
    def _is_current(self) -> bool:
        connection: Any = self._pubsub.connection if self._pubsub else None
        return connection is None or connection.generation == self._address.generation

    async def _receive(self, pubsub: PubSub) -> list[bytes] | Signal:
        while True:
            message = await pubsub.get_message(timeout=self.receive_timeout)
            now = time.monotonic()
            if message is None:
                return await self._on_silence(pubsub, now)
            self._received_at, self._pinged_at = now, None
            match message["type"]:
                case "message":
                    self._message_at = now
                    if self._subscribing or self._successor:
                        await self._drop_successor()  # it may have received these messages too
                    texts: list[bytes] = message["data"]
                    return texts
                case "subscribe":
                    self.state.recovered()
                    return Signal.SUBSCRIBED
                case "pong" if message["data"] == self._last_ping and self._successor:
                    return await self._hand_over(pubsub, self._successor)

    async def _on_silence(self, pubsub: PubSub, now: float) -> Signal:
        if self._successor:
            if now - self._last_ping_at < TIMEOUT_SECONDS:
                return Signal.SILENT
            return await self._hand_over(pubsub, self._successor)
        await self._check_connection(pubsub, now)
        if self._subscribing:
            if self._subscribing.done():
                await self._prepare_hand_over(pubsub, self._subscribing)
        elif now - self._message_at >= self.silence_seconds:
            self._message_at = now
            self._subscribing = asyncio.create_task(self._subscribe_and_confirm(), name="another subscription")
        return Signal.SILENT

    async def _check_connection(self, pubsub: PubSub, now: float) -> None:
        """Send a ping after a silence, so that a dead connection is noticed."""
        if self._pinged_at is None:
            if now - self._received_at >= TIMEOUT_SECONDS:
                self._pinged_at = now
                await pubsub.ping()
        elif now - self._pinged_at >= 2 * TIMEOUT_SECONDS:
            raise RedisConnectionError("a ping was not answered")

    async def _subscribe_and_confirm(self) -> PubSub:
        pubsub = await self._subscribe()
        try:
            confirmation = await pubsub.get_message(timeout=TIMEOUT_SECONDS)
        except BaseException:
            await pubsub.aclose()  # type: ignore[no-untyped-call]
            raise
        if confirmation is None:
            await pubsub.aclose()  # type: ignore[no-untyped-call]
            raise RedisTimeoutError("subscribing was not answered")
        return pubsub

    async def _prepare_hand_over(self, pubsub: PubSub, subscribing: "asyncio.Task[PubSub]") -> None:
        """Send the current connection's last ping, once there is another. Without one it stays: its server answers.

        A message that arrives before the answer to the ping may be one that both receive: the successor is dropped. One
        that is published after it is left to the successor.
        """
        self._subscribing = None
        try:
            self._successor = subscribing.result()
        except (RedisError, OSError) as error:
            logger.debug("the address leads to no other server: %s", error)
        else:
            self._last_ping, self._last_ping_at = b"last-%d" % next(self._last_pings), time.monotonic()
            await pubsub.ping(self._last_ping)

    async def _hand_over(self, pubsub: PubSub, successor: PubSub) -> Signal:
        """Continue with the successor, and have all other connections follow it."""
        self._address.leave()
        connection: Any = successor.connection
        connection.generation = self._address.generation
        self._successor = None
        self._use(successor)
        await pubsub.aclose()  # type: ignore[no-untyped-call]
        return Signal.SUBSCRIBED

    async def _drop_successor(self) -> None:
        subscribing, self._subscribing = self._subscribing, None
        if subscribing:
            subscribing.cancel()
            await asyncio.wait([subscribing])
            if not subscribing.cancelled() and not subscribing.exception():
                self._successor = subscribing.result()
        successor, self._successor = self._successor, None
        if successor:
            await successor.aclose()  # type: ignore[no-untyped-call]
