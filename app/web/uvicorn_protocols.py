"""uvicorn's two protocols, with limits for hostile clients, and ASGI extensions.

They override methods of uvicorn 0.54's `HttpToolsProtocol` and `WebSocketsSansIOProtocol` that are not documented. Each
docstring names what calls the method and what the override adds; `tests/http` shows whether that still holds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

from app.broadcast.messages import Message, MessageBatch
from app.monitoring.refusals import Cause, refusals
from app.web.client_address import client_address
from app.web.connection_limit import ConnectionLimit
from app.web.socket_writes import plain_descriptor, set_tcp_user_timeout, write_frames, write_now
from app.web.worker_loads import WorkerLoad

# Keys of a scope's `extensions`. The value of `ABORT` is a function that drops the connection at once: a close would
# wait, in memory, for a client that does not read. That of `WRITE` writes a `MessageBatch` at once; it returns False,
# and writes nothing, while earlier bytes wait. It must not be called after the application's own close. `STREAM` is
# to be called when a response goes on until one side ends it: the limit of connections does not count it then. `SEND`
# writes messages, and waits while earlier bytes wait. It copies no piece of them. It returns False, with some of them
# not sent, if the connection is lost, or if its response has no chunks.
ABORT, WRITE, STREAM, SEND = "notifymux.abort", "notifymux.write", "notifymux.stream", "notifymux.send"

# The key of the `ConnectionLimit` in the state that the application's lifespan returns.
CONNECTIONS = "notifymux.connections"

# The key of the worker's `WorkerLoad` in the state that its server hands over. It counts a new connection already.
LOAD = "notifymux.load"

_HEAD_TIMEOUT_SECONDS = 10.0  # for a request's head
_MAX_HEAD_BYTES = 32 * 1024
_BODY_HEADERS = {b"content-length", b"transfer-encoding"}
_MAX_FRAMES_PER_PING = 1000  # frames of any kind that a client may send between two of uvicorn's WebSocket pings
_PARSE_BYTES = 4096  # that are parsed at once, so that a flood of frames is noticed early


class HttpProtocol(HttpToolsProtocol):
    """HTTP with a timeout and a limit for a request's head, and with the extensions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None  # while a head is expected
        self._head_bytes = 0
        self._descriptor: int | None = None
        self._serving: RequestResponseCycle | None = None  # uvicorn's `cycle` may be a later one that is pipelined
        self._connections: ConnectionLimit = self.app_state[CONNECTIONS]
        self._load: WorkerLoad = self.app_state[LOAD]
        self._is_counted = True
        self._address = ""
        self._is_stream = False  # what is served goes on until one side ends it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio. Starts the timeout of the first head."""
        super().connection_made(transport)
        set_tcp_user_timeout(transport)
        self._descriptor = plain_descriptor(transport)
        self._address = client_address(self.client and self.client[0])
        self._note_activity()
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio. Aborts the connection if the head is too large."""
        if self._head_timer is None and self.cycle is not None and self.cycle.response_complete:
            self._expect_head()  # not in `on_message_begin` alone: line breaks before a request don't begin one
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                refusals.add(Cause.REQUEST, f"a request's head is larger than {_MAX_HEAD_BYTES} bytes")
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Called by httptools at a request's first byte. Adds the extensions to the scope that uvicorn makes here."""
        super().on_message_begin()
        self._count(is_busy=True)
        self.scope["extensions"] = _extensions(self.transport.abort, self._write_chunks, self._send_chunks) | {
            STREAM: self._begin_stream
        }
        if self._head_timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Called by httptools. Stops the timeout. A request with a body is the last one: no endpoint reads it."""
        self._stop_head_timer()
        self._note_activity()
        super().on_headers_complete()
        if self.cycle is not None and any(name in _BODY_HEADERS for name, _ in self.headers):
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is not HTTP. Counts it."""
        refusals.add(Cause.REQUEST, "what was sent is not HTTP")
        super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """Called by uvicorn. Notes that the connection is idle now, unless the next request is here already."""
        self._count(is_busy=bool(self.pipeline))
        super().on_response_complete()
        if not self.transport.is_closing():
            self._note_activity()

    def handle_websocket_upgrade(self) -> None:
        """Called by uvicorn when the WebSocket protocol takes over. Breaks the cycles of references to this object.

        With them it would stay in memory, for each client, until the garbage collector runs.
        """
        self._leave_limit()
        super().handle_websocket_upgrade()
        del self.parser, self.scope

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio. Ends the response that is served; uvicorn ends only the last one that was requested."""
        self._stop_head_timer()
        self._leave_limit()
        self._count(is_busy=False)
        super().connection_lost(exc)
        self._end_response()

    def shutdown(self) -> None:
        """Called by uvicorn's server when it ends. Ends a stream; uvicorn would wait for it."""
        super().shutdown()
        if self._is_stream:
            self._end_response()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Called by uvicorn for each request. Keeps its cycle, and has uvicorn notice a closed transport.

        uvloop closes a connection that is reset or aborted at once, but calls `connection_lost` an iteration later. So
        uvicorn would log a response that is cut off as the application's bug.
        """

        def notice_closed() -> None:
            cycle.disconnected = cycle.disconnected or self.transport.is_closing()

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            async def send_unless_closed(message: Any) -> None:
                notice_closed()
                await send(message)

            await app(scope, receive, send_unless_closed)
            notice_closed()

        self._serving, self._is_stream = cycle, False
        super()._start_asgi_task(cycle, serve)

    def _write_chunks(self, batch: MessageBatch) -> bool:
        cycle = self._serving
        if cycle is None or not cycle.chunked_encoding or cycle.disconnected or cycle.response_complete:
            return False
        body = batch.sse_chunks
        return write_now(self.transport, self._descriptor, b"%x\r\n%b\r\n" % (len(body), body))

    async def _send_chunks(self, messages: Sequence[Message]) -> bool:
        cycle = self._serving
        for message in messages:
            await self.flow.drain()
            if cycle is None or not cycle.chunked_encoding or cycle.disconnected or cycle.response_complete:
                return False
            pieces = message.sse_pieces
            self.transport.writelines([b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n"])
        return True

    def _end_response(self) -> None:
        """Close the connection, and tell the application that its client is gone, unless the response has ended."""
        if self._serving is not None and not self._serving.response_complete:
            self._serving.disconnected = True
            self._serving.message_event.set()
            self.transport.close()

    def _note_activity(self) -> None:
        self._connections.add(self._address, self, self.transport.abort)

    def _count(self, *, is_busy: bool) -> None:
        """Count this connection as a part of the worker's load, or no longer. A new one counts: it may be a client."""
        if is_busy != self._is_counted:
            self._is_counted = is_busy
            (self._load.add if is_busy else self._load.remove)()

    def _begin_stream(self) -> None:
        self._is_stream = True
        self._leave_limit()

    def _leave_limit(self) -> None:
        self._connections.discard(self._address, self)

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(_HEAD_TIMEOUT_SECONDS, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _MessageQueue:
    """In place of uvicorn's `asyncio.Queue`: 0.1 KiB for each client, not 3.2 (tracemalloc, CPython 3.11), of about 25.

    It has one reader. uvicorn stops reading from the client while a message is in the queue, so it needs no limit.
    """

    __slots__ = ("_messages", "_waiter")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        self._messages.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        while not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._messages.pop(0)

    def empty(self) -> bool:
        return not self._messages


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket with a limit for frames, and with the extensions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue = _MessageQueue()  # type: ignore[assignment]
        self._frames_since_ping = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio. Counts the connection no longer."""
        self.app_state[LOAD].remove()
        super().connection_lost(exc)

    async def run_asgi(self) -> None:
        """Run by uvicorn as the connection's task. Adds the extensions to the scope.

        `WRITE` is not a method of this object: with many clients, each lookup in a protocol is a cache miss.
        """
        write = partial(write_frames, self.transport, plain_descriptor(self.transport))
        self.scope["extensions"] |= _extensions(self.transport.abort, write, self._send_frames)
        await super().run_asgi()

    async def _send_frames(self, messages: Sequence[Message]) -> bool:
        for message in messages:
            await self.writable.wait()
            if self.disconnected or self.close_sent or self.transport.is_closing():
                return False
            self.transport.writelines(message.websocket_pieces)
        return True

    def start_keepalive(self) -> None:
        """Called by uvicorn after the handshake. Frees the request and the response, which uvicorn keeps."""
        super().start_keepalive()
        del self.request, self.response

    def data_received(self, data: bytes) -> None:
        """Called by asyncio. Answers a handshake that is not HTTP and closes; uvicorn would wait for more, forever."""
        for start in range(0, len(data), _PARSE_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + _PARSE_BYTES])
        if not self.handshake_initiated:
            refusals.add(Cause.HANDSHAKE, "a WebSocket's handshake is not HTTP", str(self.conn.handshake_exc))
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Called by uvicorn for a handshake. Counts those that are refused here."""
        super().handle_connect(event)
        if self.close_sent:
            refusals.add(Cause.HANDSHAKE, "a WebSocket's handshake is not valid", str(self.conn.handshake_exc))

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        """Called by the application. Has uvicorn count a response in place of the handshake as its end.

        Otherwise uvicorn logs each of them as the application's bug.
        """
        is_response = message["type"] == "websocket.http.response.body"
        return self._send_response(message) if is_response else super().send(message)

    async def _send_response(self, message: Any) -> None:
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent

    def handle_events(self) -> None:
        """Called by uvicorn's `data_received`. Closes with 1008 if a client sends too many frames."""
        self._frames_since_ping += len(self.conn.events)
        if self._frames_since_ping > _MAX_FRAMES_PER_PING and self.conn.state is State.OPEN:
            self.conn.fail(1008, "too many messages")
            self.handle_parser_exception()
        else:
            super().handle_events()

    def send_keepalive_ping(self) -> None:
        """Called by uvicorn's timer. Resets the count of frames."""
        self._frames_since_ping = 0
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """Called by uvicorn's timer; closes with 1011. Marks the client as gone, like `handle_parser_exception`.

        If the timer is late, this process was frozen, and the answer may not be read yet: it gets its time again.
        """
        now, allowed = self.loop.time(), self.ping_timeout or 0.0
        if now - self.ping_sent_at > 1.5 * allowed:
            self.ping_sent_at = now
            self.pong_timer = self.loop.call_later(allowed, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        self.disconnected = True

    def handle_parser_exception(self) -> None:
        """Called by uvicorn; closes with the parser's code. Marks the client as gone.

        Otherwise uvicorn logs what the application still sends as the application's bug.
        """
        super().handle_parser_exception()
        close = self.conn.close_sent
        if close is not None:
            refusals.add(Cause.FRAME, f"a client's WebSocket is closed with {close.code}", close.reason)
        self.disconnected = True

    def send_receive_event_to_app(self) -> None:
        """Called by uvicorn for a message. Closes with 1007 if its text is not UTF-8; uvicorn would log a traceback."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.conn.fail(1007)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()


def _extensions(
    abort: Callable[[], None],
    write: Callable[[MessageBatch], bool],
    send: Callable[[Sequence[Message]], Awaitable[bool]],
) -> dict[str, Any]:
    return {ABORT: abort, WRITE: write, SEND: send}
