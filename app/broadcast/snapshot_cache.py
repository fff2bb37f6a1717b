"""One snapshot for all clients that need one of the same match at the same time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from app.broadcast.replay_buffer import Cursor, ReplayBuffer
from app.broadcast.snapshot_query import Snapshot
from app.core.tasks import cancel_tasks

FetchSnapshot = Callable[[str], Awaitable[Snapshot]]

_MAX_CACHE_BYTES = 16 * 2**20
_OVERHEAD_BYTES = 500  # memory of a cached snapshot besides its text
_MAX_QUERIES, _PERIOD_SECONDS = 3, 10.0  # of one match; past that, an older snapshot is used


class CachedSnapshot(NamedTuple):
    """A snapshot: every event before `cursor` is in it, and later ones may be."""

    cursor: Cursor
    snapshot: Snapshot
    queried_at: tuple[float, ...]  # when the last queries for this match began, on the monotonic clock


class SnapshotCache:
    """Runs one query at a time for a match, and uses its result until the match has a newer event.

    Where that would be more than three queries in ten seconds, the last snapshot is used with the events since.

    Args:
        fetch: runs the query.
        buffer: the events since.
    """

    def __init__(self, fetch: FetchSnapshot, buffer: ReplayBuffer) -> None:
        self._fetch, self._buffer = fetch, buffer
        self._running: dict[str, asyncio.Task[CachedSnapshot]] = {}
        self._cached: OrderedDict[str, CachedSnapshot] = OrderedDict()
        self._bytes = 0

    async def get(self, match: str) -> CachedSnapshot:
        """Return a snapshot of the match. The caller adds the events since its cursor."""
        cached = self._cached.get(match)
        if cached and self._is_usable(match, cached):
            return cached
        task = self._running.get(match)
        if task is None:
            task = self._running[match] = asyncio.create_task(self._query(match, cached.queried_at if cached else ()))
            task.add_done_callback(lambda _: self._running.pop(match))
        return await asyncio.shield(task)

    def _is_usable(self, match: str, cached: CachedSnapshot) -> bool:
        if not self._buffer.contains(cached.cursor):
            return False
        if cached.snapshot.error is None and not self._buffer.has_newer(match, cached.cursor):
            return True
        return sum(time.monotonic() - at < _PERIOD_SECONDS for at in cached.queried_at) >= _MAX_QUERIES

    async def _query(self, match: str, queried_at: tuple[float, ...]) -> CachedSnapshot:
        cursor, now = self._buffer.cursor, time.monotonic()
        result = CachedSnapshot(cursor, await self._fetch(match), (*queried_at, now)[-_MAX_QUERIES:])
        self._add(match, result)
        return result

    def _add(self, match: str, result: CachedSnapshot) -> None:
        if older := self._cached.pop(match, None):
            self._bytes -= _size(older)
        self._cached[match] = result
        self._bytes += _size(result)
        while self._bytes > _MAX_CACHE_BYTES and len(self._cached) > 1:
            self._bytes -= _size(self._cached.popitem(last=False)[1])

    async def aclose(self) -> None:
        """Cancel the queries that still run."""
        await cancel_tasks(self._running.values())


def _size(cached: CachedSnapshot) -> int:
    return len(cached.snapshot.data) + _OVERHEAD_BYTES
