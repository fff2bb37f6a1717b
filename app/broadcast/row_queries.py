"""Runs the queries of updates, one at a time for a topic, and passes the updates on in commit order."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from app.broadcast.messages import Update
from app.broadcast.queried_update import QueriedUpdate
from app.broadcast.query_pool import QueryResult
from app.broadcast.topic import Topic
from app.broadcast.update_queue import MAX_UPDATES, UpdateQueue
from app.core.tasks import cancel_tasks, start_task
from notifymux.event import NULL, EventId

RunQuery = Callable[[QueriedUpdate, str, float], Awaitable[QueryResult]]
Deliver = Callable[[Topic, Sequence[Update]], None]
Groups = Callable[[Topic], Collection[str]]

_TOO_MANY = "too many updates of this match wait for queries; fetch the state"
_TOO_LATE = "the queries before this one took too long; fetch the state"
_NO_OBJECT = "the query's result is not a JSON object; fetch the state"


class RowQueries:
    """The queries of all topics that have clients.

    A query runs once for each group of the topic's clients that it may show something else, one after the other. An
    update waits at most `timeout` for its queries and for those before it; then it goes out with an error instead of a
    result, as it does if its query fails.

    Args:
        run: runs an update's query for clients with some claims within so many seconds; returns its result, or says why
            there is none.
        deliver: is called with the next updates of a topic, when they no longer wait.
        groups: returns the claims of a topic's clients, without repetition.
        resized: is called with an update that has a result, and its new size in bytes.
        abandoned: is called with a topic whose updates a bug has ended.
        timeout: seconds.
    """

    def __init__(
        self,
        run: RunQuery,
        deliver: Deliver,
        groups: Groups,
        resized: Callable[[Update, int], None],
        abandoned: Callable[[Topic], None],
        *,
        timeout: float,
    ) -> None:
        self._run, self._deliver, self._groups, self._resized = run, deliver, groups, resized
        self._abandoned, self._timeout = abandoned, timeout
        self._queues: dict[Topic, UpdateQueue] = {}
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()  # by the update that is asked for
        self._tasks: set[asyncio.Task[None]] = set()
        self.merged = 0  # updates that a newer one covers
        self.overflows = 0  # of a topic's queue

    @property
    def waiting(self) -> int:
        """The updates that wait, of all topics."""
        return sum(map(len, self._queues.values()))

    @property
    def has_waiting(self) -> bool:
        """Whether any update waits."""
        return bool(self._queues)

    def is_waiting(self, topic: Topic) -> bool:
        """Whether any update of a topic waits."""
        return topic in self._queues

    def put(self, topic: Topic, updates: Sequence[Update]) -> Sequence[Update]:
        """Add the newest updates of a topic; return those that are passed on now, as nothing before them waits."""
        queue = self._queues.get(topic)
        if queue is None:
            if not any(isinstance(update, QueriedUpdate) for update in updates):
                return updates
            queue = self._queues[topic] = UpdateQueue()
        self.merged += queue.put(updates, time.monotonic())
        if len(queue) > MAX_UPDATES:
            self.overflows += 1
            queue.fail_all(_TOO_MANY, self._groups(topic))
        return self._advance(topic, queue)

    def drop(self, topic: Topic) -> None:
        """Forget what waits, because the topic has no clients any longer: its queries are run if one comes back."""
        self._queues.pop(topic, None)

    def clear(self) -> None:
        """Forget everything that waits: every client starts again from a snapshot."""
        self._queues.clear()

    async def fetch(self, updates: Sequence[QueriedUpdate], claims: str) -> None:
        """Run the queries of updates that are in no queue for clients with these claims, one after the other."""
        until = time.monotonic() + self._timeout
        for update in updates:
            await self._fetch(update, claims, until)

    def unfetched(self, topic: Topic, updates: Sequence[Update], claims: str) -> list[QueriedUpdate]:
        """Return those of the updates of a topic whose query has not run for these claims: nobody like that watched."""
        passed_on = self.without_waiting(topic, updates)
        queried = (update for update in passed_on if isinstance(update, QueriedUpdate))
        return [update for update in queried if not update.is_fetched_for(claims)]

    def without_waiting(self, topic: Topic, updates: Sequence[Update]) -> list[Update]:
        """Return the updates of a topic that are not passed on later, by themselves or covered by a newer one."""
        queue = self._queues.get(topic)
        return [
            update
            for update in updates
            if (queue is None or queue.precedes(update))
            and not (isinstance(update, QueriedUpdate) and update.is_covered)
        ]

    def has_waiting_until(self, event_id: EventId, topics: Collection[Topic]) -> bool:
        """Whether an update of some topics waits whose id is not above another."""
        queues = [queue for topic in topics if (queue := self._queues.get(topic))]
        return any(queue.first.parsed_id is None or queue.first.parsed_id <= event_id for queue in queues)

    def count_before_waiting(self, topics: Collection[Topic], updates: Sequence[Update]) -> int:
        """Return how many of the updates, which are in order, come before all that wait of some topics."""
        queues = [queue for topic in topics if (queue := self._queues.get(topic))]
        if not queues:
            return len(updates)
        return bisect_left(updates, True, key=lambda update: not all(queue.precedes(update) for queue in queues))

    async def aclose(self) -> None:
        """Cancel the queries that still run."""
        await cancel_tasks(self._tasks)

    def _advance(self, topic: Topic, queue: UpdateQueue) -> list[Update]:
        """Have the next query run; return the updates that no longer wait."""
        done = queue.take_done()
        if update := queue.begin():
            self._spawn(topic, queue, self._run_first(topic, queue, update))
        elif not queue:
            del self._queues[topic]
        return done

    async def _run_first(self, topic: Topic, queue: UpdateQueue, update: QueriedUpdate) -> None:
        until = update.heard_at + self._timeout
        while self._queues.get(topic) is queue and not queue.is_done(update):
            groups = [claims for claims in self._groups(topic) if not update.is_fetched_for(claims)]
            for claims in groups:
                await self._fetch(update, claims, until)
            if not groups:  # else a client with other claims may have come meanwhile
                queue.finish(update)
        if self._queues.get(topic) is queue:
            self._deliver(topic, self._advance(topic, queue))

    async def _fetch(self, update: QueriedUpdate, claims: str, until: float) -> None:
        """Run a query until a time on the monotonic clock, unless its result is there."""
        # An update of several topics may be asked for by each of them: whoever comes second has the first one's result.
        async with self._locks.setdefault(id(update), asyncio.Lock()):
            if not update.is_fetched_for(claims):
                await self._ask(update, claims, until)

    async def _ask(self, update: QueriedUpdate, claims: str, until: float) -> None:
        left = until - time.monotonic()
        result = await self._run(update, claims, left) if left > 0 else QueryResult(NULL, _TOO_LATE)
        if update.is_fetched_for(claims):
            return  # too many were waiting
        try:
            size = update.show(claims, result.data) if result.error is None else update.fail(claims, result.error)
        except msgspec.DecodeError:
            size = update.fail(claims, _NO_OBJECT)
        self._resized(update, size)

    def _spawn(self, topic: Topic, queue: UpdateQueue, work: Coroutine[Any, Any, None]) -> None:
        task = start_task(work, "a bug left a match without its updates")
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() and self._queues.get(topic) is queue:
                del self._queues[topic]
                self._abandoned(topic)

        task.add_done_callback(end)
