"""Which clients may have a match, or another topic, by the team's own queries, `authorize.sql`."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from enum import Enum
from functools import partial
from typing import NamedTuple

from app.broadcast.client import CloseCode
from app.broadcast.match_view import MatchView
from app.broadcast.query_pool import QueryResult
from app.broadcast.shared_queries import SharedQueries
from app.broadcast.topic import Topic
from app.core.claims import ClaimNames
from app.core.log_throttle import LogThrottle
from app.core.query_files import parse_verdict
from app.core.tasks import cancel_tasks, start_task

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 60.0
_REFUSED_SECONDS = 5.0  # that a refusal is good for others who ask
_RETRY_SECONDS = 5.0  # until it is asked for again what could not be found out
_MAX_ANSWERS = 2000  # that are kept, besides those for clients
_MAX_WAIT_SECONDS = 10.0  # of a newcomer
_UNFIT_ID = ("22P02", "22003")  # the match id is no text of the type that the query compares it with

AskRights = Callable[[MatchView], Awaitable[QueryResult]]
End = Callable[[CloseCode], bool]  # ends what a client hears of a match; returns whether it did
StopWatching = Callable[[], None]


class Verdict(Enum):
    """Whether clients may have a match."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    UNKNOWN = "unknown"  # PostgreSQL can't be asked, or the query fails


class _Answer(NamedTuple):
    verdict: Verdict
    at: float  # when it was asked for, on the monotonic clock
    is_outage: bool


class _Watched:
    """A client that hears a match."""

    __slots__ = ("address", "end")

    def __init__(self, address: str, end: End) -> None:
        self.address, self.end = address, end


class _Watch:
    """Those of one view who hear a match; there is at least one.

    Args:
        asked_at: when the last answer that is known was asked for, on the monotonic clock.
        due_at: when to ask again.
    """

    def __init__(self, asked_at: float, due_at: float) -> None:
        self.asked_at, self.due_at = asked_at, due_at
        self.watched, self.is_being_asked = set[_Watched](), False

    def end(self, code: CloseCode) -> int:
        """End what all of them hear; return how many heard something."""
        return sum(each.end(code) for each in list(self.watched))


class MatchRights:
    """Asks whether clients with some claims may have a match, once for all with the same values, and asks again.

    An answer is good for `interval` seconds. Then it is asked for again if clients are connected: it ends for them if
    they may not have the match any longer, or if there has been no answer for one interval more.

    Args:
        names: the claims that the queries depend on.
        ask: runs the topic's.
        slots: the most queries at once.
        patience: seconds after which who waits for a turn is told that PostgreSQL can't be asked.
        interval: seconds.
    """

    def __init__(
        self,
        names: ClaimNames,
        ask: AskRights,
        slots: int,
        patience: float,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._names, self._ask, self._interval = names, ask, interval
        self.queries: SharedQueries[MatchView, _Answer] = SharedQueries(self._query, slots, patience)
        self._answers: OrderedDict[MatchView, _Answer] = OrderedDict()  # the newest is the last
        self._watches: dict[MatchView, _Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = LogThrottle(logger)
        self.revoked = self.unchecked = 0  # what clients heard and was ended

    async def check(self, topic: Topic, claims: str, address: str) -> Verdict:
        """Return whether a client with these claims, all of its token's, may have a match."""
        view = MatchView(topic, self._names.of(claims))
        if answer := self._fresh(view):
            return answer.verdict
        try:
            async with asyncio.timeout(_MAX_WAIT_SECONDS):
                return (await self.queries.get(view, [address])).verdict
        except TimeoutError:
            return Verdict.UNKNOWN

    def watch(self, topic: Topic, claims: str, address: str, end: End) -> StopWatching:
        """Call `end` when a client, which was allowed just now, may not have a match any longer.

        Return a function that stops it.

        Args:
            topic: the match.
            claims: all of its token's.
            address: where the client connects from.
            end: is called with the reason. It may be called again, and then returns False.
        """
        view = MatchView(topic, self._names.of(claims))
        answer = self._answers.get(view)
        asked_at = answer.at if answer else time.monotonic() - self._interval
        watch = self._watches.setdefault(view, _Watch(asked_at, asked_at + self._interval))
        watched = _Watched(address, end)
        watch.watched.add(watched)
        if answer and answer.verdict is Verdict.REFUSED:  # since it was allowed
            self.revoked += watch.end(CloseCode.REVOKED)
        return partial(self._stop_watching, view, watched)

    def _stop_watching(self, view: MatchView, watched: _Watched) -> None:
        watch = self._watches.get(view)
        if watch and watched in watch.watched:
            watch.watched.remove(watched)
            if not watch.watched:
                del self._watches[view]

    def ask_again(self) -> None:
        """Ask anew for all clients whose answer is old; to be called once a second."""
        now = time.monotonic()
        for view, watch in list(self._watches.items()):
            age = now - watch.asked_at
            if age >= 2 * self._interval:
                self.unchecked += watch.end(CloseCode.UNCHECKED)
                self._log("unchecked", "clients lose matches, since their rights could not be checked for %.0f s", age)
            elif now >= watch.due_at and not watch.is_being_asked:
                watch.is_being_asked = True
                addresses = {each.address for each in watch.watched}
                task = start_task(self._ask_again(view, watch, addresses), "a bug left clients' rights unchecked")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _ask_again(self, view: MatchView, watch: _Watch, addresses: Collection[str]) -> None:
        try:
            await self.queries.get(view, addresses)
        finally:
            watch.is_being_asked = False
            retry = time.monotonic() + min(_RETRY_SECONDS, self._interval / 4)
            watch.due_at = max(retry, watch.asked_at + self._interval)

    def _fresh(self, view: MatchView) -> _Answer | None:
        answer = self._answers.get(view)
        if answer is None:
            return None
        age = time.monotonic() - answer.at
        return answer if age < (self._interval if answer.verdict is Verdict.ALLOWED else _REFUSED_SECONDS) else None

    async def _query(self, view: MatchView) -> _Answer:
        at = time.monotonic()
        result = await self._ask(view)
        answer = _Answer(self._verdict(result), at, result.is_outage)
        if answer.verdict is not Verdict.UNKNOWN:
            self._store(view, answer)
        return answer

    def _store(self, view: MatchView, answer: _Answer) -> None:
        self._answers[view] = answer
        self._answers.move_to_end(view)
        if len(self._answers) > _MAX_ANSWERS:
            self._answers.popitem(last=False)
        if watch := self._watches.get(view):
            watch.asked_at = answer.at
            if answer.verdict is Verdict.REFUSED:
                self.revoked += watch.end(CloseCode.REVOKED)

    def _verdict(self, result: QueryResult) -> Verdict:
        if result.cause in _UNFIT_ID:
            return Verdict.REFUSED
        if result.error is not None:
            return Verdict.UNKNOWN
        allowed = parse_verdict(result.data)
        if allowed is None:
            self._log("value", "authorize.sql returned neither true nor false, which refuses the client")
        return Verdict.ALLOWED if allowed else Verdict.REFUSED

    async def aclose(self) -> None:
        """Cancel the queries that still run."""
        await cancel_tasks(self._tasks)
        await self.queries.aclose()
