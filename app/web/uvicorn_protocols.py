"""uvicorn's protocols, with what ASGI has no word for: a bound for handshakes, a drain, an end at once."""

import asyncio
import os
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

# In a scope's `extensions`: functions that drop the connection at once, and that send a `EncodedBatch` at once, in the
# connection's own form; these return False, and send nothing, while the client is still to take earlier ones.
ABORT, WRITE = "notifymux.abort", "notifymux.write"

DRAIN = 2.0  # seconds over which a worker that ends lets go of its clients, so that they don't come back all at once
_HEAD_WITHIN = 10.0  # seconds a request's head may take
_MOST_HEAD = 32 * 1024  # bytes of it
_UNACKNOWLEDGED = 60_000  # milliseconds until the kernel gives up a client that acknowledges nothing
_BODY = {b"content-length", b"transfer-encoding"}
_NOISE = 1000  # frames of any kind that a client may send between two of WebSocket's own pings
_PARSED_AT_ONCE = 4096  # bytes that are parsed at once, so that a flood is noticed early


class EncodedBatch(Protocol):
    """What `WRITE` takes: the same in the form of either connection."""

    @property
    def frames(self) -> bytes:
        """Whole WebSocket frames."""

    @property
    def chunks(self) -> bytes:
        """Server-sent events, as a part of a response's body."""


class HttpProtocol(HttpToolsProtocol):
    """HTTP for clients who may be slow, hostile or gone.

    Offers `ABORT`, for a client that does not read would keep a polite close, and its memory, waiting; and `WRITE`,
    which sends a part of the response's body.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._descriptor: int | None = None
        self._serving: RequestResponseCycle | None = None  # `cycle` may be one that waits behind it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock."""
        super().connection_made(transport)
        _give_up_on_the_dead(transport)
        self._descriptor = _plain_descriptor(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Takes bytes in, unless the head is endless."""
        if self._head_deadline is None and self.cycle is not None and self.cycle.response_complete:
            self._expect_head()  # they may be line breaks, which begin nothing
        if self._head_deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD:
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begins a request."""
        super().on_message_begin()
        self.scope["extensions"] = _offer(self.transport.abort, self._write_chunks)
        if self._head_deadline is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Stops the clock. A request with a body is the connection's last: no door takes one, or waits for its end."""
        self._forget_head()
        super().on_headers_complete()
        if self.cycle is not None and any(name in _BODY for name, _ in self.headers):
            self.cycle.keep_alive = False

    def handle_websocket_upgrade(self) -> None:
        """Gives way, and lets go of what refers back to it, or it would wait for the garbage collector."""
        super().handle_websocket_upgrade()
        del self.parser, self.scope

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock, and whatever is being served."""
        self._forget_head()
        super().connection_lost(exc)
        self._end_cycle()

    def shutdown(self) -> None:
        """Ends a response that would last, after a random delay."""
        super().shutdown()
        if self._serving is not None and not self._serving.response_complete:
            self.loop.call_later(DRAIN * (0.1 + 0.9 * random.random()), self._end_response)  # noqa: S311

    def _write_chunks(self, piece: EncodedBatch) -> bool:
        cycle = self._serving
        if cycle is None or not cycle.chunked_encoding or cycle.disconnected or cycle.response_complete:
            return False
        body = piece.chunks
        return _write_at_once(self.transport, self._descriptor, b"%x\r\n%b\r\n" % (len(body), body))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def serve(scope: Any, receive: Any, send: Any) -> None:
            async def send_unless_closed(message: Any) -> None:
                # uvloop closes at once what is reset or aborted, and says so only a turn later.
                cycle.disconnected = cycle.disconnected or self.transport.is_closing()
                await send(message)

            await app(scope, receive, send_unless_closed)

        self._serving = cycle
        super()._start_asgi_task(cycle, serve)

    def _end_response(self) -> None:
        if self._end_cycle():
            self.transport.close()

    def _end_cycle(self) -> bool:
        """Has what is being served end; False if it has."""
        if self._serving is None or self._serving.response_complete:
            return False
        self._serving.disconnected = True
        self._serving.message_event.set()
        return True

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_deadline = self.loop.call_later(_HEAD_WITHIN, self.transport.abort)

    def _forget_head(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None


class _Inbox:
    """What came from a client and the application has not taken: uvicorn's `asyncio.Queue` at a tenth of its weight.

    For one who takes, and bounded as that is: uvicorn reads no more from a client while something is in it.
    """

    __slots__ = ("_messages", "_waiting")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._waiting: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        """Puts one in."""
        self._messages.append(message)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self) -> Any:
        """Waits for one, and takes the oldest."""
        while not self._messages:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._messages.pop(0)

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._messages


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket, with the same in its scope, for clients who don't keep to it.

    `WRITE` is not to be used after the application's own close: then WebSocket allows no more frames.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue = _Inbox()  # type: ignore[assignment]
        self._noise = 0

    async def run_asgi(self) -> None:
        """Runs the application."""
        # Not a method of this: in a crowd, what is looked up in each client's protocol has to be fetched from memory.
        write = partial(_write_frames, self.transport, _plain_descriptor(self.transport))
        self.scope["extensions"] |= _offer(self.transport.abort, write)
        await super().run_asgi()

    def start_keepalive(self) -> None:
        """Begins to ping, once the handshake is over: what that was about is forgotten."""
        super().start_keepalive()
        del self.request, self.response

    def data_received(self, data: bytes) -> None:
        """Takes bytes in. A handshake that is none is answered; uvicorn would wait, for ever, for a better one."""
        for start in range(0, len(data), _PARSED_AT_ONCE):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + _PARSED_AT_ONCE])
        if not self.handshake_initiated:
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def handle_events(self) -> None:
        """Hands frames on, unless they are too many."""
        self._noise += len(self.conn.events)
        if self._noise > _NOISE and self.conn.state is State.OPEN:
            self.conn.fail(1008, "too many messages: there is nothing to say but pong")
            self.handle_parser_exception()
        else:
            super().handle_events()

    def send_keepalive_ping(self) -> None:
        """Pings, and begins to count anew."""
        self._noise = 0
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """Closes with 1011; the client is gone."""
        super().keepalive_timeout()
        self.disconnected = True  # or uvicorn takes what is still sent for the application's bug

    def handle_parser_exception(self) -> None:
        """Closes with the parser's code; the client is gone."""
        super().handle_parser_exception()
        self.disconnected = True

    def send_receive_event_to_app(self) -> None:
        """Hands a message on; text that is none closes with 1007, without the traceback that uvicorn has for it."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.conn.fail(1007)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def shutdown(self) -> None:
        """Closes with 1012, after a random delay."""
        if self.handshake_complete and not self.close_sent:
            self.loop.call_later(DRAIN * random.random(), self._close_for_restart)  # noqa: S311
        else:
            super().shutdown()

    def _close_for_restart(self) -> None:
        if not self.disconnected and not self.transport.is_closing():
            super().shutdown()


def _offer(abort: Callable[[], None], write: Callable[[EncodedBatch], bool]) -> dict[str, Any]:
    return {ABORT: abort, WRITE: write}


def _write_frames(transport: asyncio.Transport, descriptor: int | None, piece: EncodedBatch) -> bool:
    return _write_at_once(transport, descriptor, piece.frames)


def _write_at_once(transport: asyncio.Transport, descriptor: int | None, data: bytes) -> bool:
    """Writes past uvloop's queue, whose turn comes later and costs more, where there is a plain socket."""
    if transport.get_write_buffer_size() or transport.is_closing():
        return False
    written = 0
    if descriptor is not None:
        try:  # noqa: SIM105 - `suppress` takes as long as all the rest of this but the call
            written = os.write(descriptor, data)
        except OSError:  # the transport meets the same, and knows what to do
            pass
    if written < len(data):
        transport.write(data[written:])
    return True


def _plain_descriptor(transport: asyncio.Transport) -> int | None:
    connection = transport.get_extra_info("socket")
    return None if connection is None or transport.get_extra_info("sslcontext") else connection.fileno()


def _give_up_on_the_dead(transport: asyncio.Transport) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):  # it is gone already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED)
