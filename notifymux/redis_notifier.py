"""Events through Redis pub/sub: publish them, and call functions for those that are received."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from notifymux.event import decode, encode
from notifymux.redis_client import RedisAddress
from notifymux.redis_errors import WrongServerError, check_role
from notifymux.redis_keys import DEFAULT_NAMESPACE, RedisNames
from notifymux.subscription import SILENCE_SECONDS, Signal, Subscription

__all__ = ["NOTIFY_CHANNEL", "Callback", "RedisNotifierService", "init_redis_notifier"]

logger = logging.getLogger(__name__)

NOTIFY_CHANNEL = RedisNames(DEFAULT_NAMESPACE).events  # the pub/sub channel under the default namespace

T = TypeVar("T")
Callback = Callable[[str, Any], Awaitable[None]]

MAX_QUEUED_PAYLOADS = 10_000  # per callback


class RedisNotifierService:
    """Publishes and receives events, at most once: events published while it is disconnected are missed.

    Args:
        url: as `REDIS_URL`.
        channel: the pub/sub channel.
    """

    def __init__(self, url: str = "redis://localhost:6379", channel: str = NOTIFY_CHANNEL) -> None:
        namespace = channel.removesuffix(":events")
        self._address, self._channel = RedisAddress(url, RedisNames(namespace).log), channel
        # Workers that hear a listener of their own do not hear the channel of all events; they hear this one.
        self._direct = None if namespace == channel else RedisNames(namespace).direct
        self._subscription: Subscription | None = None  # None until `connect`
        self._callbacks: dict[tuple[str, Callback], _CallbackQueue] = {}
        self._receiver: asyncio.Task[None] | None = None  # the task behind `listen_loop`
        self._answered = False  # whether Redis answered the last command

    @property
    def is_connected(self) -> bool:
        """Whether Redis answered the last command. `listen_loop` sends one every few seconds without an event."""
        return self._answered and self.outage is None

    @property
    def outage(self) -> str | None:
        """Why `listen_loop` can't receive; None while it can."""
        return self._subscription.state.reason if self._subscription else None

    async def connect(self) -> None:
        """Connect.

        Raises:
            redis.RedisError: Redis can't be reached or refuses.
        """
        is_new = self._subscription is None
        subscription = self._subscription or Subscription(self._address, [self._channel], SILENCE_SECONDS)
        self._subscription = subscription
        try:
            await self._ask(subscription.client.ping())
        except (RedisError, OSError):
            if is_new:
                self._subscription = None  # callbacks that are registered stay
                await subscription.client.aclose()
            raise

    async def disconnect(self) -> None:
        """End the subscription, the callbacks' tasks and the connection."""
        for channel, callback in list(self._callbacks):
            self.unregister_callback(channel, callback)
        await self.unsubscribe()
        subscription, self._subscription, self._answered = self._subscription, None, False
        if subscription:
            await subscription.client.aclose()

    async def publish(self, channel: str, payload: Any) -> int:
        """Publish an event without an id: it is delivered live and can't be replayed.

        Returns:
            The number of subscribers that received it, at least.

        Raises:
            RuntimeError: `connect` was not called.
            TypeError: the channel is no text, or the payload has no JSON.
            ValueError: no subscriber could read the event, for example because its payload nests too deeply.
            redis.RedisError: the event may or may not have been published.
        """
        if not isinstance(channel, str):
            raise TypeError(f"the channel is {type(channel).__name__}; it takes text")
        try:
            json_payload, at = msgspec.json.encode(payload), time.time()
            text = encode(channel, json_payload, at)
            decode(text)
        except RecursionError:
            raise ValueError("the payload nests too deeply") from None
        texts = {self._channel: text}
        if self._direct:
            texts = {self._direct: text, self._channel: encode(channel, json_payload, at, is_copy=True)}
        return await self._ask(self._publish(self._connected().client, texts))

    async def _publish(self, client: Redis, texts: Mapping[str, bytes]) -> int:
        """Publish, and check in the same round trip that this is the primary: a replica takes PUBLISH too.

        Only a replica's own subscribers receive what is published there.
        """
        pipeline: Any = client.pipeline(transaction=False)
        pipeline.execute_command("HELLO")
        for name, text in texts.items():
            pipeline.publish(name, text)
        hello, *receivers = await pipeline.execute(raise_on_error=False)
        for answer in receivers:
            if isinstance(answer, Exception):
                raise answer
        self._check_server(hello)
        return max(map(int, receivers))

    def _check_server(self, hello: Any) -> None:
        if not isinstance(hello, Mapping):
            return  # it speaks RESP2 only
        try:
            check_role(hello)
        except WrongServerError:
            self._address.leave()
            raise

    async def subscribe(self) -> None:
        """Subscribe to the pub/sub channel.

        Raises:
            RuntimeError: `connect` was not called.
            redis.RedisError: Redis can't be reached or refuses.
        """
        await self._ask(self._connected().open())

    async def unsubscribe(self) -> None:
        """End the subscription and `listen_loop`."""
        if self._receiver:
            await _cancel(self._receiver)
        if self._subscription:
            await self._subscription.close()

    def register_callback(self, channel: str, callback: Callback) -> None:
        """Await `callback(channel, payload)` for every event of a channel, one after the other and in order.

        A slow callback delays no other one; when too many payloads wait for it, the oldest are dropped and a warning is
        logged. Needs a running event loop.
        """
        if (channel, callback) not in self._callbacks:
            self._callbacks[channel, callback] = _CallbackQueue(channel, callback)

    def unregister_callback(self, channel: str, callback: Callback) -> None:
        """Stop calling `callback`, also for the payloads that still wait for it."""
        if queue := self._callbacks.pop((channel, callback), None):
            queue.close()

    async def listen_loop(self) -> None:
        """Receive events and pass them to the callbacks until `unsubscribe` or `disconnect`. Reconnects by itself.

        Raises:
            RuntimeError: `connect` was not called.
        """
        # A task of its own, which `unsubscribe` can cancel without cancelling the caller.
        self._receiver = receiver = asyncio.create_task(self._receive(self._connected()), name="redis notifier")
        try:
            await asyncio.wait([receiver])
        finally:
            await _cancel(receiver)
        if not receiver.cancelled():
            receiver.result()

    async def _receive(self, subscription: Subscription) -> None:
        async for received in subscription.messages():
            if received is Signal.SUBSCRIBED:
                self._answered = True
            elif isinstance(received, list):
                for text in received:
                    self._dispatch(text)

    def _dispatch(self, text: bytes) -> None:
        try:
            event = decode(text)
            queues = [queue for (channel, _), queue in self._callbacks.items() if channel == event.channel]
            # One copy for each callback, which may modify it.
            payloads = [event.json() for _ in queues]
        except (ValueError, RecursionError) as error:  # ValueError: also an integer with more digits than int() accepts
            logger.warning("what was published on %s is not an event: %s", self._channel, error)
            return
        for queue, payload in zip(queues, payloads, strict=True):
            queue.put(payload)

    def _connected(self) -> Subscription:
        if self._subscription is None:
            raise RuntimeError("Redis not connected")
        return self._subscription

    async def _ask(self, command: Awaitable[T]) -> T:
        """Await a command and record whether Redis answered it."""
        try:
            answer = await command
        except (RedisError, OSError):
            self._answered = False
            raise
        self._answered = True
        return answer


class _CallbackQueue:
    """The payloads that wait for one callback, and the task that calls it."""

    def __init__(self, channel: str, callback: Callback) -> None:
        self._channel, self._callback = channel, callback
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._has_dropped = self._closed = False
        self._task = asyncio.create_task(self._run(), name=f"callback for {channel}")

    def put(self, payload: Any) -> None:
        if self._queue.qsize() >= MAX_QUEUED_PAYLOADS:
            self._queue.get_nowait()
            if not self._has_dropped:
                self._has_dropped = True
                logger.warning("a callback for %s is too slow: the oldest events are dropped", self._channel)
        self._queue.put_nowait(payload)

    def close(self) -> None:
        self._closed = True
        if asyncio.current_task() is not self._task:  # a callback that unregisters itself runs to its end
            self._task.cancel()

    async def _run(self) -> None:
        while not (self._closed or self._task.cancelling()):
            payload = await self._queue.get()
            try:
                await self._callback(self._channel, payload)
            except (Exception, asyncio.CancelledError):
                # A callback may raise anything, even the CancelledError of another task. Only `close` ends this one.
                if not self._task.cancelling():
                    logger.exception("a callback for %s failed", self._channel)


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    while not task.done():
        task.cancel()  # repeatedly: a driver may swallow it when what it awaits completes at the same moment
        await asyncio.wait([task], timeout=1.0)


async def init_redis_notifier(url: str = "redis://localhost:6379") -> RedisNotifierService:
    """Return a connected service.

    Raises:
        redis.RedisError: Redis can't be reached or refuses.
    """
    service = RedisNotifierService(url)
    await service.connect()
    return service
