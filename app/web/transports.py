"""The two kinds of connections to clients: WebSocket, and server-sent events."""

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.broadcast.client import CloseCode
from app.broadcast.messages import Message, MessageBatch
from app.web.uvicorn_protocols import ABORT, SEND, STREAM, WRITE

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # or nginx collects events before it passes them on
]
# Each client gets another delay, so that a crowd does not come back at once. A drain spreads its clients itself.
_RECONNECT_DELAY_MS, _DRAINED_DELAY_MS = (1_000, 5_000), (250, 500)


class WebSocketTransport:
    """A WebSocket: one text frame for each message."""

    answers_pings = True

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self.write, self.abort = _extensions(websocket.scope)
        self._send_shared = _shared_sender(websocket.scope)

    async def send(self, messages: Sequence[Message]) -> bool:
        """Send messages; wait while the client does not read. Return False if the connection is lost."""
        if self._send_shared is not None:
            return await self._send_shared(messages)
        try:
            for message in messages:
                await self._websocket.send_text(message.text.decode())
        except WebSocketDisconnect:
            return False
        return True

    async def receive(self) -> str | None:
        """Wait until the client sends something, and return its text. Return None if the connection is lost."""
        message = await self._websocket.receive()
        return (message.get("text") or "") if message["type"] == "websocket.receive" else None

    async def close(self, code: CloseCode) -> None:
        """Send a close frame, unless the connection is lost already."""
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close(code, code.reason)


class EventStreamTransport:
    """A response of server-sent events: an `id:` and a `data:` line for each message."""

    answers_pings = False

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.write, self.abort = _extensions(scope)
        self._send_shared = _shared_sender(scope)
        self._is_stream: Callable[[], None] = (scope.get("extensions") or {}).get(STREAM, lambda: None)

    async def begin(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send the response's head with these headers besides its own, and the delay before a reconnect."""
        self._is_stream()
        await self._send({"type": "http.response.start", "status": 200, "headers": [*_STREAM_HEADERS, *headers]})
        await self._send_delay(_RECONNECT_DELAY_MS)

    async def send(self, messages: Sequence[Message]) -> bool:
        """Send messages; wait while the client does not read. Only `receive` reports a lost connection."""
        if self._send_shared is None or not await self._send_shared(messages):
            await self._send_body(MessageBatch(messages).sse_chunks)
        return True

    async def receive(self) -> None:
        """Wait until the connection is lost: a client can't send anything over it."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def close(self, code: CloseCode) -> None:
        """End the response, which has no place for the code. Where this worker ends, the client comes back soon."""
        if code is CloseCode.SERVICE_RESTART:
            await self._send_delay(_DRAINED_DELAY_MS)
        await self._send_body(b"", more=False)

    async def _send_delay(self, milliseconds: tuple[int, int]) -> None:
        """Tell an `EventSource` after what time to reconnect: a random one between two."""
        await self._send_body(b"retry: %d\n\n" % random.randint(*milliseconds))  # noqa: S311 - spreads clients

    async def _send_body(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _extensions(scope: Scope) -> tuple[Callable[[MessageBatch], bool], Callable[[], None]]:
    """Return the functions of our own protocols to write a batch now and to abort; stand-ins under another server."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    return extensions.get(WRITE, lambda _: False), extensions.get(ABORT, lambda: None)


def _shared_sender(scope: Scope) -> Callable[[Sequence[Message]], Awaitable[bool]] | None:
    """Return the function of our own protocols to send messages without a copy for each client, if there is one."""
    sender: Callable[[Sequence[Message]], Awaitable[bool]] | None = (scope.get("extensions") or {}).get(SEND)
    return sender
