"""The feed: a Unix socket by which the workers of this pod hear events before Redis has them.

The listener names the stream, `{"stream": "{pg_notify}:log"}`. A worker sends one line, `{"after": "E-S"}`, or null as
the id, and is sent lines from then on (`listener.sequencer.feed_cursor`): first the text with that very id, if it is
remembered, by which the worker knows that it is the same event.

Nothing here waits for a worker. One that does not read is sent what it missed when it reads again, as far as it is
remembered; there is no buffer of its own but for the rest of one batch.
"""

import logging
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from listener.sequencer.feed_cursor import FeedCursor, FeedSource
from notifymux.event import EventId

logger = logging.getLogger(__name__)

_MAX_WORKERS = 256
_MAX_REQUEST_BYTES = 200
_MAX_BATCHES = 8  # that are kept for other workers during a step
_ACCEPT_SECONDS = 0.05  # from one look for new workers to the next


class _Request(msgspec.Struct):
    after: str | None


class FeedServer:
    """Serves one socket, which only this user can connect to.

    Args:
        path: of the socket; a file that is there is replaced.
        stream: the name of the stream that the events are appended to.
    """

    def __init__(self, path: Path, stream: str) -> None:
        self._path = path
        self._hello = msgspec.json.encode({"stream": stream}) + b"\n"
        self._workers: list[_Worker] = []
        self._inode = 0
        self._accept_due = 0.0
        # Where the feed ended when every worker had been sent all of it; None while one had not.
        self._sent_up_to: tuple[int, int | None] | None = None
        self._listening = self._listen()

    def _listen(self) -> socket.socket | None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)
            mask = os.umask(0o177)
            try:
                listening.bind(str(self._path))
            finally:
                os.umask(mask)
            listening.listen(_MAX_WORKERS)
            self._inode = self._path.stat().st_ino
        except OSError as error:
            listening.close()
            logger.warning("the workers of this pod hear events by Redis only: %s can't be made: %s", self._path, error)
            return None
        listening.setblocking(False)
        return listening

    def step(self, source: FeedSource | None) -> None:
        """Accept workers, and send each what it is missing."""
        if (now := time.monotonic()) >= self._accept_due:
            self._accept_due = now + _ACCEPT_SECONDS
            self._accept()
        if (end := _end_of(source)) == self._sent_up_to:
            return
        batches: dict[FeedCursor, tuple[bytes, FeedCursor]] = {}  # workers at the same place share a batch
        for worker in [worker for worker in self._workers if not worker.send(source, batches)]:
            self._workers.remove(worker)
            worker.close()
        if source:
            source.keep_from(min((worker.unfed(source.epoch) for worker in self._workers), default=sys.maxsize))
        self._sent_up_to = end if all(worker.has_all for worker in self._workers) else None
        if any(lines for lines, _ in batches.values()):
            os.sched_yield()  # a worker that wakes up on this core delivers before this process goes on to Redis

    @property
    def has_workers(self) -> bool:
        """Whether a worker is connected."""
        return bool(self._workers)

    @property
    def blocked(self) -> list["_Worker"]:
        """The workers that have to read before they can be sent more."""
        return [worker for worker in self._workers if worker.is_blocked]

    def _accept(self) -> None:
        while self._listening and len(self._workers) < _MAX_WORKERS:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.setblocking(False)
            self._workers.append(_Worker(connection, self._hello))
            self._sent_up_to = None

    def close(self) -> None:
        """Close all connections, and remove the socket."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        if self._listening:
            self._listening.close()
            self._listening = None
            with suppress(OSError):
                if self._path.stat().st_ino == self._inode:  # it may be another process's by now
                    self._path.unlink()


def _end_of(source: FeedSource | None) -> tuple[int, int | None]:
    """The epoch that is fed, 0 for none, and the sequence after its last event, None while nothing may be fed."""
    sequences = source.feed_range() if source else None
    return source.epoch if source else 0, sequences.stop if sequences else None


class _Worker:
    """One worker's connection."""

    def __init__(self, connection: socket.socket, hello: bytes) -> None:
        self._connection = connection
        self._unsent: bytes | memoryview = hello
        self._request = b""
        self._cursor: FeedCursor | None = None  # None until it has said where it is

    @property
    def is_blocked(self) -> bool:
        """Whether something could not be sent."""
        return bool(self._unsent)

    @property
    def has_all(self) -> bool:
        """Whether it was sent everything by the last `send`."""
        return self._cursor is not None and not self._unsent

    def unfed(self, epoch: int) -> int:
        """The first sequence of an epoch that it has not been sent, if it has been sent any."""
        at = self._cursor.next if self._cursor else None
        return at.sequence if at and at.epoch == epoch else sys.maxsize

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, source: FeedSource | None, batches: dict[FeedCursor, tuple[bytes, FeedCursor]]) -> bool:
        """Send what it is missing, as far as that is possible without waiting. Return False if it has gone."""
        try:
            if self._cursor is None and not self._read_request():
                return False
            while self._flush() and self._cursor is not None:
                if self._cursor not in batches:
                    lines, cursor = self._cursor.advance(source)
                    batches[self._cursor] = b"".join([line + b"\n" for line in lines]), cursor
                    if len(batches) > _MAX_BATCHES:
                        del batches[next(iter(batches))]
                self._unsent, self._cursor = batches[self._cursor]
                if not self._unsent:
                    break
        except (OSError, ValueError):
            return False
        return True

    def _read_request(self) -> bool:
        with suppress(BlockingIOError):
            data = self._connection.recv(_MAX_REQUEST_BYTES)
            self._request += data
            if not data or len(self._request) > _MAX_REQUEST_BYTES:
                return False
        if self._request.endswith(b"\n"):
            after = msgspec.json.decode(self._request, type=_Request).after
            self._cursor = FeedCursor(EventId.parse(after) if after else None)
        return True

    def _flush(self) -> bool:
        """Return whether everything is sent."""
        while self._unsent:
            try:
                sent = self._connection.send(self._unsent)
            except BlockingIOError:
                return False
            self._unsent = memoryview(self._unsent)[sent:]  # a large batch is not copied for each piece
        return True

    def close(self) -> None:
        self._connection.close()
