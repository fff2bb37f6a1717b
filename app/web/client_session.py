"""A client's conversation over one connection, from its first message to its close."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from app.broadcast.hub import EXPIRED, GONE, SILENT, Client
from app.broadcast.messages import PING, Message, MessageBatch

_CLOSE_WITHIN = 2.0  # seconds a client has to take its close
_PING = MessageBatch([PING])


class Transport(Protocol):
    """What a conversation goes over."""

    answers_pings: bool

    def write(self, burst: MessageBatch) -> bool:
        """Sends messages at once; False, and nothing is sent, if that can't be done without waiting."""

    async def send(self, messages: Sequence[Message]) -> bool:
        """Sends messages; waits while the client does not read. False when it is gone."""

    async def receive(self) -> bool:
        """Waits for a sign of life; False when the client is gone."""

    async def close(self, code: int, reason: str) -> None:
        """Says goodbye; waits while the client does not read."""

    def abort(self) -> None:
        """Drops the connection at once."""


class ClientSession:
    """What is for a client is sent, what it says is heard, until it leaves or has to.

    Args:
        wire: the connection.
        client: its place in the hub.
        ping_interval: seconds between pings.
        expires: when it has to leave, Unix seconds; None for never.
    """

    __slots__ = ("_client", "_expires", "_next_ping", "_ping_interval", "_sender", "_timer", "_unanswered", "_wire")

    def __init__(self, wire: Transport, client: Client, ping_interval: float, expires: float | None) -> None:
        self._wire, self._client = wire, client
        self._ping_interval, self._expires = ping_interval, expires
        self._next_ping = time.monotonic() + ping_interval
        self._unanswered = 0
        self._sender: asyncio.Task[bool] | None = None  # there is one only while something waits
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Talks until the client leaves or has to."""
        hearer = asyncio.create_task(self._hear())
        self._client.wake = self._wake
        self._wake()
        self._set_timer()
        try:
            code = await self._client.closing
        finally:
            self._client.wake = self._client.write = None
            self._cancel_timer()
            tasks = [hearer, *([self._sender] if self._sender else [])]
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        if code != GONE:
            await self._close(code)

    def _wake(self) -> None:
        """Has what is in the outbox sent; then what comes is written at once."""
        if self._sender is None:
            self._client.write = None
            self._sender = asyncio.create_task(self._send())
            self._sender.add_done_callback(self._sent)

    async def _send(self) -> bool:
        while messages := self._client.outbox.take():
            if not await self._wire.send(messages):
                return False
        return True

    def _sent(self, task: asyncio.Task[bool]) -> None:
        if task.cancelled() or task.exception() or not task.result():
            self._client.close(GONE)
            return
        self._sender, self._client.write = None, self._wire.write
        if self._client.outbox:  # since the task ended
            self._wake()

    async def _hear(self) -> None:
        try:
            while await self._wire.receive():
                self._unanswered = 0
        finally:
            self._client.close(GONE)

    async def _close(self, code: int) -> None:
        try:
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self._wire.close(code, Client.reason(code))
        except TimeoutError:
            self._wire.abort()

    def _set_timer(self) -> None:
        left = self._ping_interval if self._expires is None else max(0.0, self._expires - time.time())
        delay = min(self._next_ping - time.monotonic(), left)
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        """Pings, and ends the conversation with a client that is silent, or whose time is up."""
        if self._expires is not None and time.time() >= self._expires:
            self._client.close(EXPIRED)
            return
        if time.monotonic() >= self._next_ping:
            self._next_ping += self._ping_interval
            self._ping()
        self._set_timer()

    def _ping(self) -> None:
        if not self._client.live:
            return  # it waits for us
        if self._unanswered > 1 and self._wire.answers_pings:
            self._client.close(SILENT)
            return
        self._unanswered += 1
        self._client.offer(_PING)
