"""One snapshot for all clients that need one."""

import asyncio

import msgspec
import pytest

from app.broadcast.match_view import MatchView
from app.broadcast.query_pool import QueryResult
from app.broadcast.replay_buffer import ReplayBuffer
from app.broadcast.router import Router
from app.broadcast.snapshot_cache import CachedSnapshot, SnapshotCache
from app.core.claims import NO_CLAIMS
from notifymux.event import Event, EventId
from tests.support.loops import async_test, run_ready_tasks

SLOTS, PATIENCE = 2, 0.0
HOME = ["192.0.2.1"]


class Queries:
    """A cache whose queries end when the test has them end."""

    def __init__(self) -> None:
        self.buffer = ReplayBuffer(100_000)
        self.buffer.restart(EventId(7, 0))
        self.cache = SnapshotCache(self._fetch, self.buffer, SLOTS, PATIENCE)
        self.running: list[tuple[str, asyncio.Future[QueryResult]]] = []
        self.count = 0
        self._events = 0

    async def _fetch(self, view: MatchView) -> QueryResult:
        self.count += 1
        future: asyncio.Future[QueryResult] = asyncio.get_running_loop().create_future()
        self.running.append((str(view.match), future))
        return await future

    def end(self, snapshot: QueryResult | None = None) -> None:
        _, future = self.running.pop(0)
        future.set_result(snapshot or QueryResult(b"%d" % self.count))

    def event(self, match: str = "1") -> None:
        self._events += 1
        update = Router("match_id").route(Event("c", msgspec.Raw(b'{"match_id": "%b"}' % match.encode())))
        assert update
        self.buffer.record(update)
        self.buffer.position = EventId(7, self._events)

    async def get(self, match: str = "1") -> CachedSnapshot:
        """Return a snapshot; end its query at once."""
        task = asyncio.create_task(self.cache.get(MatchView(match, NO_CLAIMS), HOME))
        await run_ready_tasks()
        if self.running:
            self.end()
        return await task


@async_test
async def test_all_clients_that_wait_for_a_match_share_one_query() -> None:
    queries = Queries()
    tasks = [asyncio.create_task(queries.cache.get(MatchView("1", NO_CLAIMS), HOME)) for _ in range(1000)]
    await run_ready_tasks()
    assert len(queries.running) == 1
    queries.end(QueryResult(b'"once"'))
    assert {cached.snapshot.data for cached in await asyncio.gather(*tasks)} == {b'"once"'}


@async_test
async def test_matches_do_not_wait_for_each_other() -> None:
    queries = Queries()
    tasks = [asyncio.create_task(queries.cache.get(MatchView(match, NO_CLAIMS), HOME)) for match in ("1", "2")]
    await run_ready_tasks()
    assert sorted(match for match, _ in queries.running) == ["1", "2"]
    queries.end()
    queries.end()
    await asyncio.gather(*tasks)


@async_test
async def test_a_snapshot_is_reused_until_its_match_has_a_newer_event() -> None:
    queries = Queries()
    first = await queries.get()
    queries.event("2")
    assert await queries.get() is first
    queries.event("1")
    assert await queries.get() is not first
    assert queries.count == 2


@async_test
async def test_an_event_during_the_query_makes_its_snapshot_old() -> None:
    queries = Queries()
    task = asyncio.create_task(queries.cache.get(MatchView("1", NO_CLAIMS), HOME))
    await run_ready_tasks()
    queries.event()
    queries.end()
    cached = await task
    assert cached.cursor.position == EventId(7, 0)
    await queries.get()
    assert queries.count == 2


@async_test
async def test_after_three_queries_in_ten_seconds_the_last_snapshot_is_used_with_the_events_since() -> None:
    queries = Queries()
    for _ in range(10):
        cached = await queries.get()
        queries.event()
    assert queries.count == 3
    missed = queries.buffer.since("1", cached.cursor)
    assert missed is not None
    assert len(missed) == 8


@async_test
async def test_after_a_gap_the_query_runs_again_however_often() -> None:
    queries = Queries()
    for _ in range(5):
        await queries.get()
        queries.buffer.restart(EventId(8, 1))
    assert queries.count == 5


@async_test
async def test_a_failed_query_is_repeated_but_at_most_three_times_in_ten_seconds() -> None:
    queries = Queries()
    for _ in range(10):
        task = asyncio.create_task(queries.cache.get(MatchView("1", NO_CLAIMS), HOME))
        await run_ready_tasks()
        if queries.running:
            queries.end(QueryResult(b"null", "no"))
        assert (await task).snapshot.error == "no"
    assert queries.count == 3


@async_test
async def test_a_client_that_stops_waiting_does_not_end_the_query_of_others() -> None:
    queries = Queries()
    stops, waits = (asyncio.create_task(queries.cache.get(MatchView("1", NO_CLAIMS), HOME)) for _ in range(2))
    await run_ready_tasks()
    stops.cancel()
    await run_ready_tasks()
    queries.end(QueryResult(b"1"))
    assert (await waits).snapshot.data == b"1"


@async_test
async def test_the_cache_is_limited_in_bytes_and_drops_the_oldest_snapshot() -> None:
    queries = Queries()
    large = QueryResult(b'"' + b"x" * 6 * 2**20 + b'"')
    for match in ("1", "2", "3"):
        task = asyncio.create_task(queries.cache.get(MatchView(match, NO_CLAIMS), HOME))
        await run_ready_tasks()
        queries.end(large)
        await task
    assert await queries.cache.get(MatchView("3", NO_CLAIMS), HOME)
    assert queries.count == 3
    await queries.get("1")
    assert queries.count == 4


@async_test
async def test_long_match_ids_count_in_the_limit_of_the_cache() -> None:
    """A request's head, and so an id in it, may have 32 KiB; what is found for a made-up one is small."""
    queries = Queries()
    for number in range(600):
        await queries.get(f"{number}" + "x" * 30_000)
    assert sum(map(len, queries.cache._cached)) < 16 * 2**20
    assert queries.cache._bytes <= 16 * 2**20


@async_test
async def test_aclose_cancels_running_queries() -> None:
    queries = Queries()
    task = asyncio.create_task(queries.cache.get(MatchView("1", NO_CLAIMS), HOME))
    await run_ready_tasks()
    await queries.cache.aclose()
    await run_ready_tasks()
    assert task.cancelled()


def asks(queries: Queries, match: str, *addresses: str) -> asyncio.Task[CachedSnapshot]:
    return asyncio.create_task(queries.cache.get(MatchView(match, NO_CLAIMS), addresses))


@async_test
async def test_a_query_that_nobody_waits_for_any_more_is_not_begun() -> None:
    queries = Queries()
    running = [asks(queries, match, "home") for match in ("1", "2")]
    left, also_left, stays = asks(queries, "3", "stranger"), asks(queries, "4", "stranger"), asks(queries, "4", "home")
    await run_ready_tasks()
    assert queries.cache.queries.waiting == 2
    left.cancel()
    also_left.cancel()
    await run_ready_tasks()
    assert queries.cache.queries.waiting == 1
    queries.end()
    queries.end()
    await run_ready_tasks()
    assert [match for match, _ in queries.running] == ["4"]
    queries.end(QueryResult(b"4"))
    await asyncio.gather(*running)
    assert (await stays).snapshot.data == b"4"


@async_test
async def test_who_comes_back_while_the_query_of_a_client_that_left_runs_gets_its_result() -> None:
    queries = Queries()
    asks(queries, "1", "stranger").cancel()
    left = asks(queries, "1", "stranger")
    await run_ready_tasks()
    left.cancel()
    await run_ready_tasks()
    back = asks(queries, "1", "home")
    await run_ready_tasks()
    queries.end(QueryResult(b"1"))
    assert (await back).snapshot.data == b"1"
    assert queries.count == 1


@async_test
async def test_who_waited_for_long_is_served_without_a_snapshot_only_if_postgresql_has_had_no_query() -> None:
    queries = Queries()  # whose patience is 0 s
    first, second, third, fourth = (asks(queries, match, "home") for match in ("1", "2", "3", "4"))
    await run_ready_tasks()
    queries.end(QueryResult(b"1"))
    await first
    await run_ready_tasks()
    assert (queries.cache.queries.waiting, third.done(), fourth.done()) == (1, False, False)
    queries.end(QueryResult(b"null", "PostgreSQL is away", is_outage=True))
    assert (await second).snapshot.error
    assert (await fourth).snapshot.error == "PostgreSQL is away"
    assert not third.done(), "its query runs"
    queries.end(QueryResult(b"3"))
    assert (await third).snapshot.data == b"3"
    assert queries.cache.queries.waiting == 0
    assert queries.cache.queries.oldest_wait == 0.0


@async_test
async def test_queries_that_fail_in_postgresql_take_nobody_elses_snapshot() -> None:
    queries = Queries()  # whose patience is 0 s
    slow = [asks(queries, match, "home") for match in ("slow 1", "slow 2", "slow 3")]
    waits = asks(queries, "1", "home")
    for task in slow:
        await run_ready_tasks()
        queries.end(QueryResult(b"null", "the query takes longer than 5 s"))
        assert (await task).snapshot.error
        assert not waits.done()
    queries.end(QueryResult(b"1"))
    assert (await waits).snapshot.data == b"1"


@async_test
async def test_a_bug_in_a_query_reaches_who_waits_and_frees_its_slot() -> None:
    queries = Queries()
    waits = asks(queries, "1", "home")
    await run_ready_tasks()
    queries.running.pop()[1].set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await waits
    assert (await queries.get("1")).snapshot.data == b"2"
