"""The worker's end of the feed: a Unix socket on which this pod's listener writes each event that it numbers."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import cast

import msgspec

from app.core.descriptors import is_readable
from app.core.feed_path import feed_paths
from app.sources.feed_follower import FeedFollower

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.25  # between two looks for a socket
_HELLO_SECONDS = 1.0
_MAX_LINE_BYTES = 1 << 24  # a notification has 8,000 bytes at most


class _Hello(msgspec.Struct):
    stream: str


class ListenerFeed:
    """Reads lines from one listener of the pod, and from another one when that feeds nothing.

    Args:
        stream: the name of the stream that the events have to be for.
        follower: says when a connection is wanted, and from which id on.
        on_lines: is called with the lines of one read.
        on_lost: is called when a connection has ended.
    """

    def __init__(
        self,
        stream: str,
        follower: FeedFollower,
        on_lines: Callable[[list[bytes]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._stream, self._follower = stream, follower
        self._on_lines, self._on_lost = on_lines, on_lost
        self._connection: _Connection | None = None

    @property
    def has_another(self) -> bool:
        """Whether the pod has another listener."""
        return len(feed_paths()) > 1

    @property
    def has_unread(self) -> bool:
        """Whether this worker has been fed more than it has read."""
        return self._connection is not None and self._connection.has_unread

    def leave(self) -> None:
        """Give the connection up: the next lines are another one's."""
        if self._connection:
            self._connection.close()

    async def run(self) -> None:
        """Pass on what the listeners feed until cancelled; raise what `on_lines` raises."""
        loop = asyncio.get_running_loop()
        while True:
            for path in feed_paths() if self._follower.is_wanted(time.monotonic()) else []:
                try:
                    _, self._connection = await loop.create_unix_connection(self._new_connection, str(path))
                except OSError:
                    continue  # the listener that made it has ended
                try:
                    await self._connection.ended
                finally:
                    self._connection.close()
                    self._connection = None
                self._on_lost()
            await asyncio.sleep(_RETRY_SECONDS)

    def _new_connection(self) -> "_Connection":
        return _Connection(self._stream, self._follower, self._on_lines)


class _Connection(asyncio.Protocol):
    """One connection, which ends by itself unless the listener names this stream within a second.

    It is a protocol and no stream, since a stream wakes a task for each read: that is a tenth of what an event costs.
    """

    def __init__(self, stream: str, follower: FeedFollower, on_lines: Callable[[list[bytes]], None]) -> None:
        self._stream, self._follower, self._on_lines = stream, follower, on_lines
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._is_greeted = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timeout = self._loop.call_later(_HELLO_SECONDS, self.close)  # a listener that is frozen says nothing

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            if lines and not self._is_greeted:
                self._greet(lines.pop(0))
            if lines and self._is_greeted:
                self._on_lines(lines)
        except Exception as error:  # noqa: BLE001 - raised again by `run`; the event loop would only log it
            self._end(error)
        if len(self._rest) > _MAX_LINE_BYTES:
            self.close()

    def _greet(self, hello: bytes) -> None:
        try:
            self._is_greeted = msgspec.json.decode(hello, type=_Hello).stream == self._stream
        except msgspec.DecodeError as error:
            logger.debug("a feed says what it is by no name of a stream: %s", error)
        if not self._is_greeted:
            self.close()
            return
        self._timeout.cancel()
        after = self._follower.connected()
        self._transport.write(msgspec.json.encode({"after": str(after) if after else None}) + b"\n")

    @property
    def has_unread(self) -> bool:
        """Whether the socket has data."""
        descriptor: int = self._transport.get_extra_info("socket").fileno()
        return descriptor >= 0 and is_readable(descriptor)

    def connection_lost(self, error: Exception | None) -> None:
        if error:
            logger.debug("the feed is lost: %s", error)
        self._end()

    def close(self) -> None:
        """End the connection; nothing is passed on after that."""
        self._is_greeted = False
        self._transport.abort()

    def _end(self, error: Exception | None = None) -> None:
        self._timeout.cancel()
        if self.ended.done():
            return
        if error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)
