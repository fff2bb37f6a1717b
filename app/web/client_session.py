"""A client's connection, from its first message to its close."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from app.broadcast.client import Client, CloseCode
from app.broadcast.messages import PING, PONG, Message, MessageBatch, is_ping
from app.core.tasks import cancel_tasks

_CLOSE_TIMEOUT_SECONDS = 2.0  # for sending the close; a client that does not read holds it up
_MAX_UNANSWERED_PINGS = 2
_MAX_LATENESS = 0.5  # of a ping, in intervals; after more, this process was frozen, and answers may not be read yet


OnText = Callable[[str], None]


class Transport(Protocol):
    """A connection to a client."""

    answers_pings: bool

    def write(self, batch: MessageBatch) -> bool:
        """Send messages now. Return False, and send nothing, if that is not possible without waiting."""

    async def send(self, messages: Sequence[Message]) -> bool:
        """Send messages; wait while the client does not read. Return False if the connection is lost."""

    async def receive(self) -> str | None:
        """Wait until the client sends something, and return its text. Return None if the connection is lost."""

    async def close(self, code: CloseCode) -> None:
        """Close the connection; wait while the client does not read."""

    def abort(self) -> None:
        """Drop the connection at once."""


class ClientSession:
    """Sends pings, answers the client's, and closes the connection when one side wants it or the token expires.

    Args:
        transport: the connection.
        client: sends the messages.
        ping_interval: seconds between two pings.
        expires: when the connection is to be closed, in Unix seconds; None for never.
    """

    __slots__ = ("_client", "_expires", "_next_ping", "_ping_interval", "_timer", "_transport", "_unanswered")

    def __init__(self, transport: Transport, client: Client, ping_interval: float, expires: float | None) -> None:
        self._transport, self._client = transport, client
        self._ping_interval, self._expires = ping_interval, expires
        self._next_ping = time.monotonic() + ping_interval
        self._unanswered = 0
        self._set_timer()

    def set_expiry(self, expires: float | None) -> None:
        """Have the connection closed at another time, as the client has another token."""
        self._expires = expires
        self._timer.cancel()
        self._set_timer()

    async def run(self, on_text: OnText | None = None) -> None:
        """Serve the client until either side closes the connection.

        Args:
            on_text: is called with what the client sends, except pings; without it that is ignored.
        """
        receiver = asyncio.create_task(self._receive(on_text))
        self._client.attach(self._transport.write, self._transport.send)
        try:
            code = await self._client.closing
        finally:
            self._timer.cancel()
            errors = await self._client.detach() + await cancel_tasks([receiver])
        if errors:
            raise errors[0]
        if code is not CloseCode.DISCONNECTED:
            await self._close(code)

    async def _receive(self, on_text: OnText | None) -> None:
        try:
            while (text := await self._transport.receive()) is not None:
                self._unanswered = 0
                if is_ping(text):
                    self._client.send(PONG)
                elif on_text is not None and not self._client.closing.done():
                    on_text(text)
        finally:
            self._client.close(CloseCode.DISCONNECTED)

    async def _close(self, code: CloseCode) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                await self._transport.close(code)
        except TimeoutError:
            self._transport.abort()

    def _set_timer(self) -> None:
        delay = self._next_ping - time.monotonic()
        if self._expires is not None:
            delay = min(delay, max(0.0, self._expires - time.time()))
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        if self._expires is not None and time.time() >= self._expires:
            self._client.close(CloseCode.EXPIRED)
            return
        if (late := time.monotonic() - self._next_ping) >= 0.0:
            self._next_ping += self._ping_interval + late  # pings that were missed meanwhile count as one
            self._ping(is_late=late > _MAX_LATENESS * self._ping_interval)
        self._set_timer()

    def _ping(self, *, is_late: bool) -> None:
        """Send a ping; unless it is late, close the connection if the last two were not answered."""
        if self._client.expects_first_message:
            return  # the client still waits for its first message
        if self._unanswered >= _MAX_UNANSWERED_PINGS and self._transport.answers_pings and not is_late:
            self._client.close(CloseCode.SILENT)
            return
        self._unanswered += 1
        self._client.send(PING)
