"""One query for all clients that wait for its result at the same time, and a few queries at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Hashable
from functools import partial
from typing import Generic, Protocol, TypeVar

from app.broadcast.query_turns import QueryTurns
from app.core.tasks import cancel_tasks


class Outcome(Protocol):
    """What a query came to."""

    @property
    def is_outage(self) -> bool:
        """Whether it failed before PostgreSQL had it."""


K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Outcome)


class _Pending(Generic[R]):
    """A query that waits for its turn, or runs."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.result: asyncio.Future[R] = asyncio.get_running_loop().create_future()


class SharedQueries(Generic[K, R]):
    """Runs one query at a time for a key. Further keys wait for their turn, which goes round among clients' addresses.

    Args:
        run: runs the query of a key.
        slots: the most queries at once.
        patience: seconds after which a key gives up its turn, if PostgreSQL could not be asked for so long.
    """

    def __init__(self, run: Callable[[K], Awaitable[R]], slots: int, patience: float) -> None:
        self._run, self._patience = run, patience
        self._turns: QueryTurns[K] = QueryTurns(slots)
        self._pending: dict[K, _Pending[R]] = {}  # the one that waits the longest is the first
        self._running: set[asyncio.Task[R]] = set()
        self._is_closed = False
        self._answered_at = time.monotonic()  # when PostgreSQL last had a query, whatever came of it

    @property
    def waiting(self) -> int:
        """The number of keys that wait for their turn."""
        return len(self._turns)

    @property
    def oldest_wait(self) -> float:
        """Seconds that the first of them has waited; 0 if none waits."""
        waiting = (pending for key, pending in self._pending.items() if not self._turns.is_running(key))
        return time.monotonic() - first.since if (first := next(waiting, None)) else 0.0

    async def get(self, key: K, addresses: Collection[str]) -> R:
        """Return the result of a query that has not begun yet, or runs, for clients of these addresses.

        If it is cancelled, and nobody else waits for the key, a query that has not begun is not run.
        """
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = _Pending()
        self._turns.add(key, addresses)
        self._begin()
        try:
            return await asyncio.shield(pending.result)  # which others may wait for
        except asyncio.CancelledError:
            if not pending.result.done():
                self._leave(key, addresses)
            raise

    def _leave(self, key: K, addresses: Collection[str]) -> None:
        self._turns.remove(key, addresses)
        if key not in self._turns:
            del self._pending[key]

    def _begin(self) -> None:
        while not self._is_closed and (key := self._turns.begin()) is not None:
            task = asyncio.ensure_future(self._run(key))
            self._running.add(task)
            task.add_done_callback(partial(self._on_end, key))

    def _on_end(self, key: K, task: asyncio.Task[R]) -> None:
        self._running.discard(task)
        self._turns.end(key)
        result = self._pending.pop(key).result
        if task.cancelled():
            result.cancel()
        elif error := task.exception():
            result.set_exception(error)
        else:
            result.set_result(task.result())
            self._note_outcome(task.result())
        self._begin()

    def _note_outcome(self, outcome: R) -> None:
        """Have those give up that have waited too long, where PostgreSQL can't be asked: they get this outcome."""
        now = time.monotonic()
        if not outcome.is_outage:
            self._answered_at = now
            return
        if now - self._answered_at < self._patience:
            return
        for key, pending in list(self._pending.items()):
            if now - pending.since >= self._patience and not self._turns.is_running(key):
                self._turns.give_up(key)
                del self._pending[key]
                pending.result.set_result(outcome)

    async def aclose(self) -> None:
        """Cancel the queries that still run."""
        self._is_closed = True
        await cancel_tasks(self._running)
