"""One snapshot for all who ask."""

import asyncio

import msgspec

from app.broadcast.messages import Router
from app.broadcast.replay_buffer import ReplayBuffer
from app.broadcast.snapshot_cache import CachedSnapshot, SnapshotCache
from app.broadcast.snapshot_query import Snapshot
from notifymux.event import Event, EventId
from tests.support.loops import async_test, run_ready_tasks


class Queries:
    """Queries that end when the test says so."""

    def __init__(self) -> None:
        self.history = ReplayBuffer(100_000)
        self.history.restart(EventId(7, 0))
        self.cache = SnapshotCache(self._take, self.history)
        self.running: list[tuple[str, asyncio.Future[Snapshot]]] = []
        self.asked = 0
        self._count = 0

    async def _take(self, match: str) -> Snapshot:
        self.asked += 1
        future: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self.running.append((match, future))
        return await future

    def end(self, snapshot: Snapshot | None = None) -> None:
        _, future = self.running.pop(0)
        future.set_result(snapshot or Snapshot(b"%d" % self.asked))

    def event(self, match: str = "1") -> None:
        self._count += 1
        update = Router("match_id").route(Event("c", msgspec.Raw(b'{"match_id": "%b"}' % match.encode())))
        assert update
        self.history.record(update)
        self.history.advance(EventId(7, self._count))

    async def get(self, match: str = "1") -> CachedSnapshot:
        """A snapshot, whatever it takes."""
        task = asyncio.create_task(self.cache.get(match))
        await run_ready_tasks()
        if self.running:
            self.end()
        return await task


@async_test
async def test_all_who_wait_for_a_match_share_one_query() -> None:
    queries = Queries()
    tasks = [asyncio.create_task(queries.cache.get("1")) for _ in range(1000)]
    await run_ready_tasks()
    assert len(queries.running) == 1
    queries.end(Snapshot(b'"once"'))
    assert {taken.snapshot.data for taken in await asyncio.gather(*tasks)} == {b'"once"'}


@async_test
async def test_matches_do_not_wait_for_each_other() -> None:
    queries = Queries()
    tasks = [asyncio.create_task(queries.cache.get(match)) for match in ("1", "2")]
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
    assert queries.asked == 2


@async_test
async def test_an_event_while_the_query_runs_makes_it_news() -> None:
    queries = Queries()
    task = asyncio.create_task(queries.cache.get("1"))
    await run_ready_tasks()
    queries.event()
    queries.end()
    taken = await task
    assert taken.mark.position == EventId(7, 0)
    await queries.get()
    assert queries.asked == 2


@async_test
async def test_past_three_queries_in_ten_seconds_the_last_snapshot_does_with_the_events_since() -> None:
    queries = Queries()
    for _ in range(10):
        taken = await queries.get()
        queries.event()
    assert queries.asked == 3
    missed = queries.history.since("1", taken.mark)
    assert missed is not None
    assert len(missed) == 8


@async_test
async def test_what_was_forgotten_or_broken_by_a_gap_is_asked_for_again_however_often() -> None:
    queries = Queries()
    for _ in range(5):
        await queries.get()
        queries.history.restart(EventId(8, 1))
    assert queries.asked == 5


@async_test
async def test_a_failure_is_not_kept_for_the_next_but_does_not_become_a_storm() -> None:
    queries = Queries()
    for _ in range(10):
        task = asyncio.create_task(queries.cache.get("1"))
        await run_ready_tasks()
        if queries.running:
            queries.end(Snapshot(b"null", "no"))
        assert (await task).snapshot.error == "no"
    assert queries.asked == 3


@async_test
async def test_who_stops_waiting_does_not_end_the_others_query() -> None:
    queries = Queries()
    impatient, patient = (asyncio.create_task(queries.cache.get("1")) for _ in range(2))
    await run_ready_tasks()
    impatient.cancel()
    await run_ready_tasks()
    queries.end(Snapshot(b"1"))
    assert (await patient).snapshot.data == b"1"


@async_test
async def test_what_is_kept_is_bounded_and_the_oldest_makes_room() -> None:
    queries = Queries()
    large = Snapshot(b'"' + b"x" * 6 * 2**20 + b'"')
    for match in ("1", "2", "3"):
        task = asyncio.create_task(queries.cache.get(match))
        await run_ready_tasks()
        queries.end(large)
        await task
    assert await queries.cache.get("3")
    assert queries.asked == 3
    await queries.get("1")
    assert queries.asked == 4


@async_test
async def test_closing_ends_what_runs() -> None:
    queries = Queries()
    task = asyncio.create_task(queries.cache.get("1"))
    await run_ready_tasks()
    await queries.cache.aclose()
    await run_ready_tasks()
    assert task.cancelled()
