"""The two ways a conversation goes: over a WebSocket, and as server-sent events."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.broadcast.messages import Message, MessageBatch
from app.web.uvicorn_protocols import ABORT, WRITE

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events
]
_RETRY = 1_000, 5_000  # milliseconds, of which each client is told others


class WebSocketTransport:
    """One text frame per message."""

    answers_pings = True

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self.write = _extension(websocket.scope, WRITE) or _refuse

    async def send(self, messages: Sequence[Message]) -> bool:
        """Sends messages."""
        try:
            for message in messages:
                await self._websocket.send_text(message.text.decode())
        except WebSocketDisconnect:
            return False
        return True

    async def receive(self) -> bool:
        """Whether the client said something, rather than left."""
        message = await self._websocket.receive()
        return bool(message["type"] == "websocket.receive")

    async def close(self, code: int, reason: str) -> None:
        """Sends the close frame, unless the client was faster."""
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close(code, reason)

    def abort(self) -> None:
        """Drops the connection."""
        _abort(self._websocket.scope)


class EventStreamTransport:
    """Server-sent events: one `id:` and one `data:` line per message."""

    answers_pings = False

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self.write = _extension(scope, WRITE) or _refuse

    async def begin(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Sends the head with some headers more, and how long to wait before coming back."""
        await self._send({"type": "http.response.start", "status": 200, "headers": [*_STREAM_HEADERS, *headers]})
        await self._send_body(b"retry: %d\n\n" % random.randint(*_RETRY))  # noqa: S311 - spreads a crowd

    async def send(self, messages: Sequence[Message]) -> bool:
        """Sends messages in one piece; that a client is gone is noticed by `receive`."""
        await self._send_body(MessageBatch(messages).chunks)
        return True

    async def receive(self) -> bool:
        """Waits until the client is gone: it has nothing to say."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        return False

    async def close(self, code: int, reason: str) -> None:  # noqa: ARG002 - here is no place for them
        """Ends the response."""
        await self._send_body(b"", more=False)

    def abort(self) -> None:
        """Drops the connection."""
        _abort(self._scope)

    async def _send_body(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _abort(scope: Scope) -> None:
    if abort := _extension(scope, ABORT):
        abort()


def _refuse(burst: MessageBatch) -> bool:  # noqa: ARG001
    """Another server's wires can't send at once."""
    return False


def _extension(scope: Scope, name: str) -> Callable[..., Any] | None:
    """What our own protocols offer besides ASGI; None on another server."""
    extension: Callable[..., Any] | None = (scope.get("extensions") or {}).get(name)
    return extension
