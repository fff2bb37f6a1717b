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
_RECONNECT_DELAY_MS = 1_000, 5_000  # each client gets another one, so that a crowd does not come back at once


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
        await self._send_body(b"retry: %d\n\n" % random.randint(*_RECONNECT_DELAY_MS))  # noqa: S311 - spreads clients

    async def send(self, messages: Sequence[Message]) -> bool:
        """Send messages; wait while the client does not read. Only `receive` reports a lost connection."""
        if self._send_shared is None or not await self._send_shared(messages):
            await self._send_body(MessageBatch(messages).sse_chunks)
        return True

    async def receive(self) -> None:
        """Wait until the connection is lost: a client can't send anything over it."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def close(self, _: CloseCode) -> None:
        """End the response, which has no place for the code."""
        await self._send_body(b"", more=False)

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
