"""The fan-out of one worker, and how its clients start."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from app.broadcast.client import Client, CloseCode
from app.broadcast.hub import Hub
from app.broadcast.match_view import MatchView
from app.broadcast.messages import Message, MessageBatch
from app.broadcast.query_pool import QueryResult
from app.broadcast.router import Router
from notifymux.event import Event, EventId
from notifymux.stream_reader import Take
from tests.support.loops import async_test, run_ready_tasks, wait_until_async


class World:
    """A hub, and the snapshot queries and range reads that it waits for."""

    def __init__(self, *, queue_bytes: int = 10_000, replay_bytes: int = 10_000, started: bool = True) -> None:
        self.hub = Hub(
            Router("match_id"),
            self._fetch_snapshot,
            self._read_range,
            queue_bytes,
            replay_bytes,
            snapshot_pool=2,
            snapshot_timeout=5.0,
        )
        self.queries: list[asyncio.Future[QueryResult]] = []
        self.reads: list[tuple[EventId, EventId, asyncio.Future[list[Event] | None]]] = []
        if started:
            self.hub.start(EventId(7, 0), [])

    async def _fetch_snapshot(self, _: MatchView) -> QueryResult:
        self.queries.append(asyncio.get_running_loop().create_future())
        return await self.queries[-1]

    async def _read_range(self, after: EventId, until: EventId, take: Take) -> bool:
        self.reads.append((after, until, asyncio.get_running_loop().create_future()))
        events = await self.reads[-1][2]
        return events is not None and all(take([event]) for event in events)

    async def answer(self, data: bytes = b"{}") -> None:
        """Answer the oldest query."""
        await run_ready_tasks()
        self.queries.pop(0).set_result(QueryResult(data))
        await run_ready_tasks()

    async def streaming(self, match: str = "1", name: str = "c") -> Client:
        """Return a client that has received its snapshot."""
        client = self.hub.join(match, name)
        await run_ready_tasks()
        if self.queries:
            await self.answer()
        await received(client)
        return client


def event(number: int | None, match: object = 1, pad: int = 0) -> Event:
    payload = {"match_id": match, "data": {"n": number, "pad": "." * pad}}
    return Event("match_change", msgspec.Raw(json.dumps(payload).encode()), f"7-{number}" if number else None)


async def received(client: Client) -> list[dict[str, Any]]:
    """Remove and return what is queued for a client."""
    await run_ready_tasks()
    return [json.loads(message.text) for message in client.queue.drain()]


async def never_needed(messages: Sequence[Message]) -> bool:
    raise AssertionError(messages)


def ids(messages: list[dict[str, Any]]) -> list[str | None]:
    return [message["id"] for message in messages]


@async_test
async def test_an_event_goes_to_the_clients_of_its_match_only() -> None:
    world = World()
    first, second = await world.streaming("1"), await world.streaming("2")
    world.hub.deliver([event(1, 1)])
    world.hub.deliver([event(2, "2")])
    assert ids(await received(first)) == ["7-1"]
    assert ids(await received(second)) == ["7-2"]


@async_test
async def test_events_during_the_snapshot_query_come_after_the_snapshot_also_those_without_an_id() -> None:
    world = World()
    client = world.hub.join("1", "c")
    world.hub.deliver([event(1)])
    await run_ready_tasks()
    world.hub.deliver([event(2)])
    world.hub.deliver([event(None)])
    await world.answer(b'"snapshot"')
    first, *rest = await received(client)
    assert (first["type"], first["recovered"], first["data"]) == ("initial-load", False, "snapshot")
    assert ids(rest) == ["7-1", "7-2", None]


@async_test
async def test_a_client_that_reconnects_gets_what_it_missed_and_no_snapshot() -> None:
    world = World()
    for number in (1, 2, 3):
        world.hub.deliver([event(number, 1 if number != 2 else 2)])
    messages = await received(world.hub.join("1", "c", EventId(7, 1)))
    assert messages[0] == {"type": "initial-load", "recovered": True, "id": "7-1", "match_id": 1, "data": None}
    assert ids(messages[1:]) == ["7-3"]
    assert not world.queries


@async_test
async def test_a_client_that_was_ahead_of_this_worker_gets_no_event_twice() -> None:
    world = World()
    world.hub.deliver([event(1)])
    client = world.hub.join("1", "c", EventId(7, 3))
    assert ids(await received(client)) == ["7-3"]
    for number in (2, 3, 4):
        world.hub.deliver([event(number)])
    assert ids(await received(client)) == ["7-4"]
    assert not world.queries


@async_test
async def test_an_id_that_this_worker_does_not_reach_within_the_bound_is_a_resync(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.broadcast.initial_loads.CATCH_UP_SECONDS", 0.01)
    world = World()
    world.hub.deliver([event(1)])
    future, ahead = world.hub.join("1", "future", EventId(7, 10**15)), world.hub.join("1", "ahead", EventId(7, 3))
    assert (ids(await received(future)), ids(await received(ahead))) == ([f"7-{10**15}"], ["7-3"])
    world.hub.deliver([event(2), event(3, 2)])
    await wait_until_async(lambda: world.queries)
    await world.answer(b'"now"')
    world.hub.deliver([event(4)])
    [first, second] = await received(future)
    assert (first["type"], first["id"], first["data"]) == ("resync", "7-3", "now")
    assert second["id"] == "7-4"
    assert ids(await received(ahead)) == ["7-4"], "it had them all"


@async_test
async def test_an_event_without_an_id_does_not_end_the_skipping_of_events_that_a_client_has() -> None:
    world = World()
    client = world.hub.join("1", "c", EventId(7, 2))
    await received(client)
    world.hub.deliver([event(None)])
    for number in (1, 2, 3):
        world.hub.deliver([event(number)])
    assert ids(await received(client)) == [None, "7-3"]


@async_test
async def test_events_that_the_replay_buffer_has_dropped_are_read_back_and_those_received_meanwhile_follow() -> None:
    world = World(replay_bytes=1_500)
    for number in range(1, 8):
        world.hub.deliver([event(number)])
    client = world.hub.join("1", "c", EventId(7, 1))
    await run_ready_tasks()
    after, until, answer = world.reads.pop()
    assert (after, until) == (EventId(7, 1), EventId(7, 7))
    world.hub.deliver([event(8)])
    answer.set_result([event(number, 1 if number != 4 else 2) for number in range(2, 8)])
    messages = await received(client)
    assert messages[0]["recovered"]
    assert ids(messages[1:]) == ["7-2", "7-3", "7-5", "7-6", "7-7", "7-8"]


@pytest.mark.parametrize("answer", [None, [event(number, pad=4_000) for number in range(2, 8)]])
def test_events_that_are_gone_or_exceed_the_queue_are_replaced_by_a_snapshot(
    answer: list[Event] | None,
) -> None:
    @async_test
    async def run() -> None:
        world = World(replay_bytes=1_500)
        for number in range(1, 8):
            world.hub.deliver([event(number)])
        client = world.hub.join("1", "c", EventId(7, 1))
        await run_ready_tasks()
        world.reads.pop()[2].set_result(answer)
        await world.answer()
        [first] = await received(client)
        assert not first["recovered"]
        assert first["id"] == "7-7"

    run()


@async_test
async def test_a_client_with_an_id_of_another_epoch_starts_with_a_snapshot() -> None:
    world = World()
    for epoch in (6, 8):
        client = world.hub.join("1", f"c{epoch}", EventId(epoch, 1))
        await run_ready_tasks()
        if world.queries:
            await world.answer()
        assert not (await received(client))[0]["recovered"]
    assert not world.reads


@async_test
async def test_a_client_waits_until_the_source_has_found_its_position_and_then_receives_everything() -> None:
    world = World(started=False)
    newcomer, returning = world.hub.join("1", "new"), world.hub.join("1", "back", EventId(7, 1))
    await run_ready_tasks()
    assert not world.queries
    world.hub.start(EventId(7, 3), [event(number) for number in (1, 2, 3)])
    await world.answer()
    assert (await received(newcomer))[0]["type"] == "initial-load"
    assert ids(await received(returning)) == ["7-1", "7-2", "7-3"]


@async_test
async def test_after_a_gap_one_fresh_snapshot_for_each_match_goes_to_all_of_its_streaming_clients() -> None:
    world = World()
    clients = [await world.streaming("1", f"c{number}") for number in range(3)] + [await world.streaming("2")]
    world.hub.gap(EventId(8, 1), "a test")
    world.hub.deliver([Event("match_change", event(1).payload, "8-2")])
    await run_ready_tasks()
    assert len(world.queries) == 2
    for _ in range(2):
        await world.answer(b'"fresh"')
    for client in clients[:3]:
        first, *rest = await received(client)
        assert (first["type"], first["id"], first["data"]) == ("resync", "8-1", "fresh")
        assert ids(rest) == ["8-2"]
    assert [message["type"] for message in await received(clients[3])] == ["resync"]


@async_test
async def test_a_gap_during_the_snapshot_query_repeats_the_query() -> None:
    world = World()
    client = world.hub.join("1", "c")
    await run_ready_tasks()
    world.hub.gap(EventId(8, 1), "a test")
    await world.answer(b'"stale"')
    await world.answer(b'"fresh"')
    [first] = await received(client)
    assert (first["data"], first["id"]) == ("fresh", "8-1")


@async_test
async def test_a_client_is_closed_after_three_snapshots_that_gaps_made_useless() -> None:
    world = World()
    client = world.hub.join("1", "c")
    for epoch in range(8, 11):
        await run_ready_tasks()
        world.hub.gap(EventId(epoch, 1), "a test")
        await world.answer()
    assert client.closing.result() == CloseCode.SLOW


@async_test
async def test_a_client_id_belongs_to_the_newest_connection_and_the_older_ones_end_does_not_remove_it() -> None:
    world = World()
    older = await world.streaming()
    newer = await world.streaming()
    assert older.closing.result() == CloseCode.REPLACED
    world.hub.leave(older)
    world.hub.deliver([event(1)])
    assert ids(await received(newer)) == ["7-1"]
    assert len(world.hub) == 1
    world.hub.leave(newer)
    assert len(world.hub) == 0


@async_test
async def test_a_client_that_leaves_during_the_snapshot_query_gets_nothing_and_others_get_their_snapshot() -> None:
    world = World()
    gone, stays = world.hub.join("1", "gone"), world.hub.join("1", "stays")
    await run_ready_tasks()
    world.hub.leave(gone)
    await world.answer()
    assert await received(gone) == []
    assert len(await received(stays)) == 1


@async_test
async def test_the_snapshot_of_clients_that_have_left_is_not_queried_and_nothing_is_kept_of_them() -> None:
    world = World()
    strangers = [world.hub.join(f"made-up-{number}", "c", address="192.0.2.1") for number in range(50)]
    await run_ready_tasks()
    for stranger in strangers:
        world.hub.leave(stranger)
    newcomer = world.hub.join("1", "c", address="192.0.2.2")
    await world.answer()
    await world.answer()
    await world.answer(b'"score"')
    assert (await received(newcomer))[0]["data"] == "score"
    assert not world.queries
    assert not world.hub.initial_loads._crowds


@async_test
async def test_a_client_id_belongs_to_its_owner() -> None:
    world = World()
    first = world.hub.join("1", "c", owner="sub a")
    other = world.hub.join("1", "c", owner="sub b")
    again = world.hub.join("1", "c", owner="sub a")
    await run_ready_tasks()
    assert first.closing.result() == CloseCode.REPLACED
    assert not other.closing.done()
    assert not again.closing.done()


@async_test
async def test_nothing_is_written_to_a_client_that_was_ahead_until_there_is_something_new() -> None:
    world = World()
    world.hub.deliver([event(1)])
    client = world.hub.join("1", "c", EventId(7, 3))
    await received(client)
    written: list[list[str | None]] = []

    def write(batch: MessageBatch) -> bool:
        written.append([message.event_id for message in batch.messages])
        return True

    client.attach(write, never_needed)
    world.hub.deliver([event(2), event(3)])
    world.hub.deliver([event(4), event(5)])
    assert written == [["7-4", "7-5"]]


@async_test
async def test_a_client_that_does_not_read_is_closed_at_its_limit_and_counted_and_others_go_on() -> None:
    world = World(queue_bytes=2_000)
    slow, fast = await world.streaming(name="slow"), await world.streaming(name="fast")
    for number in range(1, 40):
        world.hub.deliver([event(number)])
        assert ids(await received(fast)) == [f"7-{number}"]
    assert slow.closing.result() == CloseCode.SLOW
    assert world.hub.slow_closes == 1
    assert sum(len(json.dumps(message)) for message in await received(slow)) < 2_500


@async_test
async def test_an_event_larger_than_the_limit_is_still_sent() -> None:
    world = World(queue_bytes=1_000)
    client = await world.streaming()
    world.hub.deliver([event(1, pad=5_000)])
    assert ids(await received(client)) == ["7-1"]
    assert not client.closing.done()


@async_test
async def test_a_payload_without_a_match_goes_to_no_client_but_advances_the_position() -> None:
    world = World()
    client = await world.streaming()
    world.hub.deliver([Event("match_change", msgspec.Raw(b'"text"'), "7-1")])
    world.hub.deliver([event(2)])
    assert ids(await received(client)) == ["7-2"]
    assert ids(await received(world.hub.join("1", "d", EventId(7, 1)))) == ["7-1", "7-2"]


@async_test
async def test_a_bug_in_a_snapshot_closes_the_clients_that_wait_for_it(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    client = world.hub.join("1", "c")
    await run_ready_tasks()
    world.queries.pop().set_exception(ZeroDivisionError())
    await run_ready_tasks()
    assert client.closing.result() == CloseCode.BUG
    assert "a bug left clients without their first message" in caplog.text


@async_test
async def test_a_client_that_waits_for_its_snapshot_after_a_gap_is_told_so_once() -> None:
    world = World()
    client = await world.streaming()
    world.hub.gap(EventId(9, 0), "a test")
    await asyncio.sleep(0.6)
    assert await received(client) == [{"type": "stale", "id": None, "match_id": 1}]
    await world.answer()
    assert [message["type"] for message in await received(client)] == ["resync"]


@async_test
async def test_clients_that_leave_before_they_start_leave_no_match_behind_in_the_queue() -> None:
    """Each may be of another made-up match, so that what stays of one would have no bound."""
    world = World(started=False)
    before, after = world.hub.join("1", "c"), world.hub.join("2", "c")
    world.hub.leave(before)
    await run_ready_tasks()
    world.hub.leave(after)
    world.hub.start(EventId(7, 0), [])
    await run_ready_tasks()
    assert not world.queries
    assert (world.hub.snapshots.queries.waiting, world.hub.snapshots.queries.oldest_wait) == (0, 0.0)
    assert not world.hub.snapshots.queries._pending
    assert not world.hub.initial_loads._tasks


@async_test
async def test_nothing_is_read_from_the_stream_for_a_client_that_has_left() -> None:
    world = World(replay_bytes=1_500)
    for number in range(1, 8):
        world.hub.deliver([event(number)])
    world.hub.leave(world.hub.join("1", "c", EventId(7, 1)))
    await run_ready_tasks()
    assert not world.reads
