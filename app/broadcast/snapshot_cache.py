"""One snapshot for all who ask for the same match at the same position."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from app.broadcast.replay_buffer import Cursor, ReplayBuffer
from app.broadcast.snapshot_query import Snapshot

FetchSnapshot = Callable[[str], Awaitable[Snapshot]]

_KEPT_BYTES = 16 * 2**20
_OVERHEAD = 500  # bytes a kept snapshot takes besides its text
_QUERIES, _PERIOD = 3, 10.0  # past so many queries for a match in so many seconds, an older snapshot does


class CachedSnapshot(NamedTuple):
    """A snapshot; every event up to `mark` is in it, and later ones may be."""

    mark: Cursor
    snapshot: Snapshot
    asked_at: tuple[float, ...]  # of the last queries for this match


class SnapshotCache:
    """Runs one query at a time for a match, shared by all who wait, and reused until the match has a newer event.

    Where events and newcomers come so fast that this would be more than three queries in ten seconds, the last snapshot
    is used with the events since.

    Args:
        take: runs the query.
        history: the events since.
    """

    def __init__(self, take: FetchSnapshot, history: ReplayBuffer) -> None:
        self._take, self._history = take, history
        self._running: dict[str, asyncio.Task[CachedSnapshot]] = {}
        self._kept: OrderedDict[str, CachedSnapshot] = OrderedDict()
        self._bytes = 0

    async def get(self, match: str) -> CachedSnapshot:
        """A snapshot of the match. The events since its mark are the caller's to add."""
        kept = self._kept.get(match)
        if kept and self._is_usable(match, kept):
            return kept
        task = self._running.get(match)
        if task is None:
            task = self._running[match] = asyncio.create_task(self._query(match, kept.asked_at if kept else ()))
            task.add_done_callback(lambda _: self._running.pop(match))
        return await asyncio.shield(task)

    def _is_usable(self, match: str, kept: CachedSnapshot) -> bool:
        if not self._history.covers(kept.mark):
            return False
        if kept.snapshot.error is None and not self._history.has_news(match, kept.mark):
            return True
        return sum(time.monotonic() - at < _PERIOD for at in kept.asked_at) >= _QUERIES

    async def _query(self, match: str, asked_at: tuple[float, ...]) -> CachedSnapshot:
        mark, now = self._history.mark, time.monotonic()
        taken = CachedSnapshot(mark, await self._take(match), (*asked_at, now)[-_QUERIES:])
        self._keep(match, taken)
        return taken

    def _keep(self, match: str, taken: CachedSnapshot) -> None:
        if older := self._kept.pop(match, None):
            self._bytes -= _size(older)
        self._kept[match] = taken
        self._bytes += _size(taken)
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])

    async def aclose(self) -> None:
        """Ends the queries that still run."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _size(taken: CachedSnapshot) -> int:
    return len(taken.snapshot.data) + _OVERHEAD
