"""Events through Redis: the small public piece under Redis mode, usable alone."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from enum import Enum, auto
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from notifymux.event import decode, encode
from notifymux.outage import Outage
from notifymux.pubsub_parser import BatchParser
from notifymux.redis_client import TIMEOUT_SECONDS, async_client

__all__ = ["NOTIFY_CHANNEL", "Callback", "RedisNotifierService", "Signal", "init_redis_notifier"]

logger = logging.getLogger(__name__)

NOTIFY_CHANNEL = "pg_notify:events"  # the pub/sub channel under the default namespace

T = TypeVar("T")
Callback = Callable[[str, Any], Awaitable[None]]

_RETRY = 1.0  # seconds at most until Redis is tried again, for clients wait, and then there is much to catch up on
_QUEUE = 10_000  # payloads that may wait for one callback; past it the oldest is dropped, counted and logged


class Signal(Enum):
    """What `messages` yields besides texts."""

    SUBSCRIBED = auto()  # a (re)subscription: what was published before it was not heard
    SILENT = auto()  # nothing was heard for one `tick`
    LOST = auto()  # the connection is gone and is being replaced


class RedisNotifierService:
    """Publishes and hears events. At most once: what is published while the subscription is away is not heard.

    (The workers close that hole with the stream; see `app.sources.redis`.)

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
        self._asked_at: float | None = None  # when Redis was asked for a sign of life that hasn't come yet
        self._outage = Outage("Redis", logger, cap=_RETRY)
        self._answers = False
        self._ended, self._left = asyncio.Event(), asyncio.Event()  # by `unsubscribe`, and what that interrupted
        self._waiting: asyncio.Task[Any] | None = None  # who can be interrupted
        self.tick = TIMEOUT_SECONDS  # seconds between signals of silence

    @property
    def is_connected(self) -> bool:
        """Whether Redis answered when it was last asked, which a subscription asks every few seconds."""
        return self._answers and self._outage.reason is None

    @property
    def outage(self) -> str | None:
        """Why Redis is away, None while it isn't."""
        return self._outage.reason

    @property
    def reconnects(self) -> int:
        """How often Redis was away and came back."""
        return self._outage.recoveries

    async def connect(self) -> None:
        """Connects.

        Raises:
            redis.RedisError: Redis is away, or refuses.
        """
        new = self._redis is None
        self.open()
        try:
            await self._client().ping()
        except (RedisError, OSError):
            self._answers = False
            if new:
                await self.disconnect()
            raise
        self._answers = True

    def open(self) -> None:
        """Makes ready to connect on first use, for who waits for Redis in `messages`."""
        if self._redis is None:
            self._redis = async_client(self._url, parser_class=BatchParser)

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
        try:
            heard: int = await self._client().publish(self._channel, text)
        except (RedisError, OSError):
            self._answers = False
            raise
        self._answers = True
        return heard

    async def subscribe(self) -> None:
        """Subscribes to the channel.

        Raises:
            RuntimeError: `connect` was not called.
            redis.RedisError: Redis is away, or refuses.
        """
        if self._pubsub is None:
            self._pubsub = self._client().pubsub()
        try:
            await self._pubsub.subscribe(self._channel)
        except (RedisError, OSError):
            self._answers = False
            await self._drop_subscription()
            raise
        self._heard_at, self._asked_at = time.monotonic(), None

    async def unsubscribe(self) -> None:
        """Ends the subscription, and with it `listen_loop`."""
        self._ended.set()
        if self._waiting:
            self._waiting.cancel()
            await self._left.wait()
        await self._drop_subscription()

    async def _interruptible(self, work: Awaitable[T]) -> T | None:
        """Awaits `work`; None if `unsubscribe` interrupted it.

        (A subscription that is closed while somebody reads it is connected again by redis-py, and then leaks.)
        """
        task = self._waiting = asyncio.current_task()
        self._left.clear()
        try:
            return await work
        except asyncio.CancelledError:
            if task is None or not self._ended.is_set() or task.uncancel():
                raise
            return None
        finally:
            self._waiting = None
            self._left.set()

    async def _drop_subscription(self) -> None:
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
            runner.end()

    async def listen_loop(self) -> None:
        """Hears events and hands them to the callbacks until `unsubscribe` or `disconnect`, over any outage.

        Raises:
            RuntimeError: `connect` was not called.
        """
        async for heard in self.messages():
            if not isinstance(heard, Signal):
                for text in heard:
                    self._dispatch(text)

    async def messages(self) -> AsyncIterator[list[bytes] | Signal]:
        """The texts that are published, all that came in one read at once, and the signals between them.

        It ends with `unsubscribe`.

        Raises:
            RuntimeError: `connect` was not called.
        """
        self._client()
        self._ended.clear()
        while not self._ended.is_set():
            try:
                if self._pubsub is None or self._outage.reason:
                    await self._drop_subscription()
                    if not self._ended.is_set():
                        await self._interruptible(self.subscribe())
                while (pubsub := self._pubsub) is not None and not self._ended.is_set():
                    yield await self._receive(pubsub)
            except (RedisError, OSError) as error:
                if self._ended.is_set():
                    return
                delay = self._outage.failed(error)
                yield Signal.LOST
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), delay)

    async def _receive(self, pubsub: PubSub) -> list[bytes] | Signal:
        while True:
            message = await self._interruptible(pubsub.get_message(timeout=self.tick))
            now = time.monotonic()
            if message is None:
                if not self._ended.is_set():
                    await self._ask(pubsub, now)
                return Signal.SILENT
            self._heard_at, self._asked_at = now, None
            match message["type"]:
                case "message":
                    texts: list[bytes] = message["data"]
                    return texts
                case "subscribe":
                    self._answers = True
                    self._outage.over()
                    return Signal.SUBSCRIBED

    async def _ask(self, pubsub: PubSub, now: float) -> None:
        """Asks for a sign of life after a silence, so that a dead connection is noticed."""
        if self._asked_at is None:
            if now - self._heard_at >= TIMEOUT_SECONDS:
                self._asked_at = now
                await pubsub.ping()
        elif now - self._asked_at >= 2 * TIMEOUT_SECONDS:
            raise RedisConnectionError("a ping was not answered")

    def _dispatch(self, text: bytes) -> None:
        try:
            event = decode(text)
            runners = [runner for (channel, _), runner in self._callbacks.items() if channel == event.channel]
            # Each gets its own: what one callback does to its payload is not seen by another.
            payloads = [json.loads(bytes(event.payload)) for _ in runners]
        except (ValueError, RecursionError) as error:  # also a number of more digits than Python takes
            logger.warning("what was published on %s is not an event: %s", self._channel, error)
            return
        for runner, payload in zip(runners, payloads, strict=True):
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
        self._ended = False
        self._task = asyncio.create_task(self._run(), name=f"callback for {channel}")

    def offer(self, payload: Any) -> None:
        if self._queue.qsize() >= _QUEUE:
            self._queue.get_nowait()
            self._dropped += 1
            if self._dropped == 1:
                logger.warning("a callback for %s is too slow: the oldest events are dropped", self._channel)
        self._queue.put_nowait(payload)

    def end(self) -> None:
        self._ended = True
        if asyncio.current_task() is not self._task:  # a callback that unregisters itself comes to its own end
            self._task.cancel()

    async def _run(self) -> None:
        while not (self._ended or self._task.cancelling()):
            payload = await self._queue.get()
            try:
                await self._callback(self._channel, payload)
            except (Exception, asyncio.CancelledError):
                # Whatever the user's code raises harms no other callback, and not its own next event.
                if not self._task.cancelling():
                    logger.exception("a callback for %s failed", self._channel)


async def init_redis_notifier(url: str = "redis://localhost:6379") -> RedisNotifierService:
    """A connected service.

    Raises:
        redis.RedisError: Redis is away, or refuses.
    """
    service = RedisNotifierService(url)
    await service.connect()
    return service
