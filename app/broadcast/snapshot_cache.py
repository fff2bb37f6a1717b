"""One snapshot for all clients that need one of the same match at the same time."""

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import NamedTuple

from app.broadcast.query_pool import QueryResult
from app.broadcast.replay_buffer import Cursor, ReplayBuffer
from app.broadcast.snapshot_queue import SnapshotQueue
from app.core.tasks import cancel_tasks

FetchSnapshot = Callable[[str], Awaitable[QueryResult]]

_MAX_CACHE_BYTES = 16 * 2**20
_OVERHEAD_BYTES = 500  # memory of a cached snapshot besides its text and its match id, which anybody may make up
_MAX_QUERIES, _PERIOD_SECONDS = 3, 10.0  # of one match; past that, an older snapshot is used


class CachedSnapshot(NamedTuple):
    """A snapshot: every event before `cursor` is in it, and later ones may be."""

    cursor: Cursor
    snapshot: QueryResult
    queried_at: tuple[float, ...]  # when the last queries for this match began, on the monotonic clock


class _Pending(NamedTuple):
    """A match whose query waits for its turn, or runs."""

    since: float  # on the monotonic clock
    result: asyncio.Future[CachedSnapshot]


class SnapshotCache:
    """Runs one query at a time for a match, and uses its result until the match has a newer event.

    Where that would be more than three queries in ten seconds, the last snapshot is used with the events since.

    Args:
        fetch: runs the query.
        buffer: the events since.
        slots: the most queries at once. Further matches wait for their turn.
        patience: seconds after which a match gives up its turn, if PostgreSQL could not be asked for so long.
    """

    def __init__(self, fetch: FetchSnapshot, buffer: ReplayBuffer, slots: int, patience: float) -> None:
        self._fetch, self._buffer, self._patience = fetch, buffer, patience
        self._queue = SnapshotQueue(slots)
        self._pending: dict[str, _Pending] = {}  # the one that waits the longest is the first
        self._running: set[asyncio.Task[CachedSnapshot]] = set()
        self._is_closed = False
        self._answered_at = time.monotonic()  # when PostgreSQL last had a query, whatever came of it
        self._cached: OrderedDict[str, CachedSnapshot] = OrderedDict()
        self._bytes = 0

    @property
    def waiting(self) -> int:
        """The number of matches that wait for their turn."""
        return len(self._queue)

    @property
    def oldest_wait(self) -> float:
        """Seconds that the first of them has waited; 0 if none waits."""
        waiting = (pending for match, pending in self._pending.items() if not self._queue.is_running(match))
        return time.monotonic() - first.since if (first := next(waiting, None)) else 0.0

    async def get(self, match: str, addresses: Collection[str]) -> CachedSnapshot:
        """Return a snapshot of the match, for clients of these addresses. The caller adds the events since its cursor.

        If it is cancelled, and nobody else waits for the match, a query that has not begun is not run.
        """
        cached = self._cached.get(match)
        if cached and self._is_usable(match, cached):
            return cached
        pending = self._pending.get(match)
        if pending is None:
            pending = self._pending[match] = _Pending(time.monotonic(), asyncio.get_running_loop().create_future())
        self._queue.add(match, addresses)
        self._begin_queries()
        try:
            return await asyncio.shield(pending.result)  # which others may wait for
        except asyncio.CancelledError:
            if not pending.result.done():
                self._leave(match, addresses)
            raise

    def _leave(self, match: str, addresses: Collection[str]) -> None:
        self._queue.remove(match, addresses)
        if match not in self._queue:
            del self._pending[match]

    def _is_usable(self, match: str, cached: CachedSnapshot) -> bool:
        if not self._buffer.contains(cached.cursor):
            return False
        if cached.snapshot.error is None and not self._buffer.has_newer(match, cached.cursor):
            return True
        return sum(time.monotonic() - at < _PERIOD_SECONDS for at in cached.queried_at) >= _MAX_QUERIES

    def _begin_queries(self) -> None:
        while not self._is_closed and (match := self._queue.begin()) is not None:
            task = asyncio.create_task(self._query(match))
            self._running.add(task)
            task.add_done_callback(partial(self._on_end, match))

    async def _query(self, match: str) -> CachedSnapshot:
        cached = self._cached.get(match)
        queried_at = cached.queried_at if cached else ()
        cursor, now = self._buffer.cursor, time.monotonic()
        return CachedSnapshot(cursor, await self._fetch(match), (*queried_at, now)[-_MAX_QUERIES:])

    def _on_end(self, match: str, task: asyncio.Task[CachedSnapshot]) -> None:
        self._running.discard(task)
        self._queue.end(match)
        result = self._pending.pop(match).result
        if task.cancelled():
            result.cancel()
        elif error := task.exception():
            result.set_exception(error)
        else:
            self._add(match, task.result())
            result.set_result(task.result())
            self._note_outcome(task.result().snapshot)
        self._begin_queries()

    def _note_outcome(self, snapshot: QueryResult) -> None:
        now = time.monotonic()
        if not snapshot.is_outage:
            self._answered_at = now
            return
        if now - self._answered_at < self._patience:
            return
        for match, pending in list(self._pending.items()):
            if now - pending.since >= self._patience and not self._queue.is_running(match):
                self._queue.give_up(match)
                del self._pending[match]
                pending.result.set_result(CachedSnapshot(self._buffer.cursor, snapshot, ()))

    def _add(self, match: str, result: CachedSnapshot) -> None:
        if older := self._cached.pop(match, None):
            self._bytes -= _size(match, older)
        self._cached[match] = result
        self._bytes += _size(match, result)
        while self._bytes > _MAX_CACHE_BYTES and len(self._cached) > 1:
            self._bytes -= _size(*self._cached.popitem(last=False))

    async def aclose(self) -> None:
        """Cancel the queries that still run."""
        self._is_closed = True
        await cancel_tasks(self._running)


def _size(match: str, cached: CachedSnapshot) -> int:
    return len(cached.snapshot.data) + sys.getsizeof(match) + _OVERHEAD_BYTES
