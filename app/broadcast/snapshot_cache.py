"""One snapshot for all clients that need one of the same match at the same time."""

import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

from app.broadcast.match_view import MatchView
from app.broadcast.query_pool import QueryResult
from app.broadcast.replay_buffer import Cursor, ReplayBuffer
from app.broadcast.shared_queries import SharedQueries
from app.broadcast.topic import Topic

FetchSnapshot = Callable[[MatchView], Awaitable[QueryResult]]

_MAX_CACHE_BYTES = 16 * 2**20
_OVERHEAD_BYTES = 500  # memory of a cached snapshot besides its text and its view, which anybody may make up
_MAX_QUERIES, _PERIOD_SECONDS = 3, 10.0  # of one view; past that, an older snapshot is used


class CachedSnapshot(NamedTuple):
    """A snapshot: every event before `cursor` is in it, and later ones may be."""

    cursor: Cursor
    snapshot: QueryResult
    queried_at: tuple[float, ...]  # when the last queries for this view began, on the monotonic clock

    @property
    def is_outage(self) -> bool:
        """Whether there is none because PostgreSQL can't be asked."""
        return self.snapshot.is_outage


class SnapshotCache:
    """Runs one query at a time for a view of a match, and uses its result until the match has a newer event.

    Where that would be more than three queries in ten seconds, the last snapshot is used with the events since.

    Args:
        fetch: runs the query.
        buffer: the events since.
        slots: the most queries at once. Further views wait for their turn.
        patience: seconds after which a view gives up its turn, if PostgreSQL could not be asked for so long.
    """

    def __init__(self, fetch: FetchSnapshot, buffer: ReplayBuffer, slots: int, patience: float) -> None:
        self._fetch, self._buffer = fetch, buffer
        self.queries: SharedQueries[MatchView, CachedSnapshot] = SharedQueries(self._query, slots, patience)
        self._cached: OrderedDict[MatchView, CachedSnapshot] = OrderedDict()
        self._bytes = 0

    async def get(self, view: MatchView, addresses: Collection[str]) -> CachedSnapshot:
        """Return a snapshot, for clients of these addresses. The caller adds the events since its cursor.

        If it is cancelled, and nobody else waits for the view, a query that has not begun is not run.
        """
        cached = self._cached.get(view)
        if cached and self._is_usable(view.match, cached):
            return cached
        return await self.queries.get(view, addresses)

    def _is_usable(self, topic: Topic, cached: CachedSnapshot) -> bool:
        if not self._buffer.contains(cached.cursor):
            return False
        if cached.snapshot.error is None and not self._buffer.has_newer(topic, cached.cursor):
            return True
        return sum(time.monotonic() - at < _PERIOD_SECONDS for at in cached.queried_at) >= _MAX_QUERIES

    async def _query(self, view: MatchView) -> CachedSnapshot:
        cached = self._cached.get(view)
        queried_at = cached.queried_at if cached else ()
        cursor, now = self._buffer.cursor, time.monotonic()
        result = CachedSnapshot(cursor, await self._fetch(view), (*queried_at, now)[-_MAX_QUERIES:])
        self._add(view, result)
        return result

    def _add(self, view: MatchView, result: CachedSnapshot) -> None:
        if older := self._cached.pop(view, None):
            self._bytes -= _size(view, older)
        self._cached[view] = result
        self._bytes += _size(view, result)
        while self._bytes > _MAX_CACHE_BYTES and len(self._cached) > 1:
            self._bytes -= _size(*self._cached.popitem(last=False))

    async def aclose(self) -> None:
        """Cancel the queries that still run."""
        await self.queries.aclose()


def _size(view: MatchView, cached: CachedSnapshot) -> int:
    return len(cached.snapshot.data) + sum(map(sys.getsizeof, view)) + _OVERHEAD_BYTES
