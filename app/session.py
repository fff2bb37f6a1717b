"""A client's conversation over one connection, from its first message to its close."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

from app.hub import EXPIRED, SILENT, Client
from app.messages import PING, Message

_CLOSE_WITHIN = 2.0  # seconds a client has to take its close


class Wire(Protocol):
    """What a conversation goes over."""

    answers_pings: bool

    async def send(self, messages: Sequence[Message]) -> bool:
        """Sends messages; waits while the client does not read. False when it is gone."""

    async def receive(self) -> bool:
        """Waits for a sign of life; False when the client is gone."""

    async def close(self, code: int, reason: str) -> None:
        """Says goodbye; waits while the client does not read."""

    def abort(self) -> None:
        """Drops the connection at once."""


class Session:
    """What waits for a client is sent, what it says is heard, whichever ends first ends both.

    Args:
        wire: the connection.
        client: its place in the hub.
        ping_interval: seconds between pings.
        expires: when it has to leave, Unix seconds; None for never.
    """

    def __init__(self, wire: Wire, client: Client, ping_interval: float, expires: float | None) -> None:
        self._wire, self._client = wire, client
        self._ping_interval, self._expires = ping_interval, expires
        self._unanswered = 0

    async def run(self) -> None:
        """Talks until the client leaves or has to."""
        tasks = [asyncio.create_task(work) for work in (self._send(), self._hear(), self._tick())]
        try:
            ends: list[asyncio.Future[Any]] = [*tasks, self._client.closing]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        if self._client.closing.done():
            await self._close(self._client.closing.result())

    async def _close(self, code: int) -> None:
        try:
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self._wire.close(code, Client.reason(code))
        except TimeoutError:
            self._wire.abort()

    async def _send(self) -> None:
        while await self._wire.send(await self._client.outbox.take()):
            pass

    async def _hear(self) -> None:
        while await self._wire.receive():
            self._unanswered = 0

    async def _tick(self) -> None:
        """Pings, and ends the conversation with a client that is silent, or whose time is up."""
        next_ping = time.monotonic() + self._ping_interval
        while True:
            left = self._ping_interval if self._expires is None else max(0.0, self._expires - time.time())
            await asyncio.sleep(min(next_ping - time.monotonic(), left))
            if self._expires is not None and time.time() >= self._expires:
                self._client.close(EXPIRED)
                return
            if time.monotonic() >= next_ping:
                next_ping += self._ping_interval
                self._ping()

    def _ping(self) -> None:
        if not self._client.live:
            return  # it waits for us
        if self._unanswered > 1 and self._wire.answers_pings:
            self._client.close(SILENT)
            return
        self._unanswered += 1
        self._client.outbox.put(PING)
