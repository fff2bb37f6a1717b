"""Events through Redis: the small public piece under Redis mode, usable alone."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum, auto
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from app.core.event import decode, encode
from app.core.names import NOTIFY_CHANNEL
from app.core.redis_client import TIMEOUT, async_client
from app.core.retry import Outage

__all__ = ["NOTIFY_CHANNEL", "Callback", "RedisNotifierService", "Signal", "init_redis_notifier"]

logger = logging.getLogger(__name__)

Callback = Callable[[str, Any], Awaitable[None]]

_QUEUE = 10_000  # payloads that may wait for one callback; past it the oldest is dropped, counted and logged


class Signal(Enum):
    """What `messages` yields besides texts."""

    SUBSCRIBED = auto()  # a (re)subscription: what was published before it was not heard
    SILENT = auto()  # nothing was heard for one `tick`
    LOST = auto()  # the connection is gone and is being replaced


class RedisNotifierService:
    """Publishes and hears events. At most once: what is published while the subscription is away is not heard.

    (The workers close that hole with the stream; see `app.redis_source`.)

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        channel: the pub/sub channel.
    """

    def __init__(self, url: str = "redis://localhost:6379", channel: str = NOTIFY_CHANNEL) -> None:
        self._url, self._channel = url, channel
        self._redis: Redis | None = None
        self._pubsub: PubSub | None = None
        self._callbacks: dict[tuple[str, Callback], _Runner] = {}
        self._heard_at = 0.0
        self._outage = Outage("Redis", logger)
        self._answers = False
        self.tick = TIMEOUT  # seconds between signals of silence

    @property
    def is_connected(self) -> bool:
        """Whether Redis answered when it was last asked, which a subscription asks every few seconds."""
        return self._answers

    @property
    def outage(self) -> str | None:
        """Why Redis is away, None while it isn't."""
        return self._outage.reason

    async def connect(self) -> None:
        """Connects.

        Raises:
            redis.RedisError: Redis is away, or refuses.
        """
        self.open()
        await self._client().ping()
        self._answers = True

    def open(self) -> None:
        """Makes ready to connect on first use, for who waits for Redis in `messages`."""
        if self._redis is None:
            self._redis = async_client(self._url)

    async def disconnect(self) -> None:
        """Ends the subscription, the callbacks' tasks and the connection."""
        for channel, callback in list(self._callbacks):
            self.unregister_callback(channel, callback)
        await self.unsubscribe()
        client, self._redis, self._answers = self._redis, None, False
        if client:
            await client.aclose()

    async def publish(self, channel: str, payload: Any) -> int:
        """Publishes one event, without a number: it is delivered live and can't be resumed.

        Returns:
            How many subscribers heard it.

        Raises:
            RuntimeError: `connect` was not called.
            redis.RedisError: it may or may not have been published.
        """
        text = encode(channel, msgspec.json.encode(payload), time.time())
        heard: int = await self._client().publish(self._channel, text)
        return heard

    async def subscribe(self) -> None:
        """Subscribes to the channel.

        Raises:
            RuntimeError: `connect` was not called.
            redis.RedisError: Redis is away, or refuses.
        """
        if self._pubsub is None:
            self._pubsub = self._client().pubsub()
        await self._pubsub.subscribe(self._channel)
        self._heard_at = time.monotonic()

    async def unsubscribe(self) -> None:
        """Ends the subscription, and with it `listen_loop`."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def register_callback(self, channel: str, callback: Callback) -> None:
        """Has `callback(channel, payload)` awaited for every event of a channel, in order, one after the other.

        A slow callback delays no other. Needs a running event loop.
        """
        if (channel, callback) not in self._callbacks:
            self._callbacks[channel, callback] = _Runner(channel, callback)

    def unregister_callback(self, channel: str, callback: Callback) -> None:
        """Ends it; what still waits for it is dropped."""
        if runner := self._callbacks.pop((channel, callback), None):
            runner.cancel()

    async def listen_loop(self) -> None:
        """Hears events and hands them to the callbacks until `unsubscribe` or `disconnect`, over any outage.

        Raises:
            RuntimeError: `connect` was not called.
        """
        async for message in self.messages():
            if isinstance(message, bytes):
                self._dispatch(message)

    async def messages(self) -> AsyncIterator[bytes | Signal]:
        """The texts that are published, and the signals between them, until `unsubscribe`.

        Raises:
            RuntimeError: `connect` was not called.
        """
        self._client()
        while self._redis is not None:
            try:
                if self._pubsub is None or self._outage.reason:
                    await self.unsubscribe()
                    await self.subscribe()
                while (pubsub := self._pubsub) is not None:
                    yield await self._receive(pubsub)
            except (RedisError, OSError) as error:
                if self._redis is None or self._pubsub is None:
                    return
                self._answers = False
                delay = self._outage.failed(error)
                yield Signal.LOST
                await asyncio.sleep(delay)
            else:
                return

    async def _receive(self, pubsub: PubSub) -> bytes | Signal:
        while True:
            message = await pubsub.get_message(timeout=self.tick)
            now = time.monotonic()
            if message is None:
                if now - self._heard_at > 3 * TIMEOUT:
                    raise RedisConnectionError(f"no answer for {now - self._heard_at:.0f} s")
                if now - self._heard_at > TIMEOUT:
                    await pubsub.ping()
                return Signal.SILENT
            self._heard_at = now
            match message["type"]:
                case "message":
                    text: bytes = message["data"]
                    return text
                case "subscribe":
                    self._answers = True
                    self._outage.over()
                    return Signal.SUBSCRIBED

    def _dispatch(self, text: bytes) -> None:
        try:
            event = decode(text)
        except msgspec.DecodeError as error:
            logger.warning("what was published on %s is not an event: %s", self._channel, error)
            return
        payload: Any = None
        for (channel, _), runner in self._callbacks.items():
            if channel == event.channel:
                payload = payload if payload is not None else json.loads(bytes(event.payload))
                runner.offer(payload)

    def _client(self) -> Redis:
        if self._redis is None:
            raise RuntimeError("Redis not connected")
        return self._redis


class _Runner:
    """One callback's queue and task."""

    def __init__(self, channel: str, callback: Callback) -> None:
        self._channel, self._callback = channel, callback
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._dropped = 0
        self._task = asyncio.create_task(self._run(), name=f"callback for {channel}")

    def offer(self, payload: Any) -> None:
        if self._queue.qsize() >= _QUEUE:
            self._queue.get_nowait()
            self._dropped += 1
            if self._dropped == 1:
                logger.warning("a callback for %s is too slow: the oldest events are dropped", self._channel)
        self._queue.put_nowait(payload)

    def cancel(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            payload = await self._queue.get()
            try:
                await self._callback(self._channel, payload)
            except Exception:
                # Whatever the user's code raises harms no other callback.
                logger.exception("a callback for %s failed", self._channel)


async def init_redis_notifier(url: str = "redis://localhost:6379") -> RedisNotifierService:
    """A connected service.

    Raises:
        redis.RedisError: Redis is away, or refuses.
    """
    service = RedisNotifierService(url)
    await service.connect()
    return service
