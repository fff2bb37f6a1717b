"""The fan-out of one worker, and how its clients begin."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from app.broadcast.hub import REPLACED, SLOW, Client, Hub
from app.broadcast.messages import MessageBatch, Router
from app.broadcast.snapshot_query import Snapshot
from notifymux.event import Event, EventId
from tests.support.loops import async_test, run_ready_tasks


class World:
    """A hub, and the queries and recalls that it waits for."""

    def __init__(self, *, queue: int = 10_000, history: int = 10_000, started: bool = True) -> None:
        self.hub = Hub(Router("match_id"), self._snapshot, self._recall, queue, history)
        self.queries: list[asyncio.Future[Snapshot]] = []
        self.recalls: list[tuple[EventId, EventId, asyncio.Future[list[Event] | None]]] = []
        if started:
            self.hub.start(EventId(7, 0), [])

    async def _snapshot(self, match: str) -> Snapshot:
        self.queries.append(asyncio.get_running_loop().create_future())
        return await self.queries[-1]

    async def _recall(self, after: EventId, until: EventId) -> list[Event] | None:
        self.recalls.append((after, until, asyncio.get_running_loop().create_future()))
        return await self.recalls[-1][2]

    async def answer(self, data: bytes = b"{}") -> None:
        """Ends the query that runs."""
        await run_ready_tasks()
        self.queries.pop(0).set_result(Snapshot(data))
        await run_ready_tasks()

    async def live(self, match: str = "1", name: str = "c") -> Client:
        """A client that has had its snapshot."""
        client = self.hub.join(match, name)
        await run_ready_tasks()
        if self.queries:
            await self.answer()
        await heard(client)
        return client


def event(number: int | None, match: object = 1, pad: int = 0) -> Event:
    payload = {"match_id": match, "data": {"n": number, "pad": "." * pad}}
    return Event("match_change", msgspec.Raw(json.dumps(payload).encode()), f"7-{number}" if number else None)


async def heard(client: Client) -> list[dict[str, Any]]:
    """What waits for a client."""
    await run_ready_tasks()
    return [json.loads(message.text) for message in client.outbox.take()]


def ids(messages: list[dict[str, Any]]) -> list[str | None]:
    return [message["id"] for message in messages]


@async_test
async def test_an_event_goes_to_the_clients_of_its_match_only() -> None:
    world = World()
    first, second = await world.live("1"), await world.live("2")
    world.hub.deliver([event(1, 1)])
    world.hub.deliver([event(2, "2")])
    assert ids(await heard(first)) == ["7-1"]
    assert ids(await heard(second)) == ["7-2"]


@async_test
async def test_what_happens_while_the_snapshot_is_taken_comes_after_it_also_what_has_no_number() -> None:
    world = World()
    client = world.hub.join("1", "c")
    world.hub.deliver([event(1)])
    await run_ready_tasks()
    world.hub.deliver([event(2)])
    world.hub.deliver([event(None)])
    await world.answer(b'"the snapshot"')
    first, *rest = await heard(client)
    assert (first["type"], first["recovered"], first["data"]) == ("initial-load", False, "the snapshot")
    assert ids(rest) == ["7-1", "7-2", None]


@async_test
async def test_who_comes_back_gets_what_it_missed_and_no_snapshot() -> None:
    world = World()
    for number in (1, 2, 3):
        world.hub.deliver([event(number, 1 if number != 2 else 2)])
    messages = await heard(world.hub.join("1", "c", EventId(7, 1)))
    assert messages[0] == {"type": "initial-load", "recovered": True, "id": "7-1", "match_id": 1, "data": None}
    assert ids(messages[1:]) == ["7-3"]
    assert not world.queries


@async_test
async def test_who_was_ahead_of_this_worker_hears_on_from_where_it_was() -> None:
    world = World()
    world.hub.deliver([event(1)])
    client = world.hub.join("1", "c", EventId(7, 3))
    assert ids(await heard(client)) == ["7-3"]
    for number in (2, 3, 4):
        world.hub.deliver([event(number)])
    assert ids(await heard(client)) == ["7-4"]
    assert not world.queries


@async_test
async def test_who_was_ahead_is_not_put_back_by_what_was_published_directly() -> None:
    world = World()
    client = world.hub.join("1", "c", EventId(7, 2))
    await heard(client)
    world.hub.deliver([event(None)])
    for number in (1, 2, 3):
        world.hub.deliver([event(number)])
    assert ids(await heard(client)) == [None, "7-3"]


@async_test
async def test_what_is_no_longer_remembered_is_recalled_with_what_comes_meanwhile() -> None:
    world = World(history=1_500)
    for number in range(1, 8):
        world.hub.deliver([event(number)])
    client = world.hub.join("1", "c", EventId(7, 1))
    await run_ready_tasks()
    after, until, answer = world.recalls.pop()
    assert (after, until) == (EventId(7, 1), EventId(7, 7))
    world.hub.deliver([event(8)])
    answer.set_result([event(number, 1 if number != 4 else 2) for number in range(2, 8)])
    messages = await heard(client)
    assert messages[0]["recovered"]
    assert ids(messages[1:]) == ["7-2", "7-3", "7-5", "7-6", "7-7", "7-8"]


@pytest.mark.parametrize("answer", [None, [event(number, pad=4_000) for number in range(2, 8)]])
def test_what_cannot_be_recalled_or_is_more_than_a_queue_holds_is_a_snapshot(answer: list[Event] | None) -> None:
    @async_test
    async def run() -> None:
        world = World(history=1_500)
        for number in range(1, 8):
            world.hub.deliver([event(number)])
        client = world.hub.join("1", "c", EventId(7, 1))
        await run_ready_tasks()
        world.recalls.pop()[2].set_result(answer)
        await world.answer()
        [first] = await heard(client)
        assert not first["recovered"]
        assert first["id"] == "7-7"

    run()


@async_test
async def test_an_id_of_another_epoch_is_a_snapshot() -> None:
    world = World()
    for epoch in (6, 8):
        client = world.hub.join("1", f"c{epoch}", EventId(epoch, 1))
        await run_ready_tasks()
        if world.queries:
            await world.answer()
        assert not (await heard(client))[0]["recovered"]
    assert not world.recalls


@async_test
async def test_before_the_source_has_found_its_place_a_client_waits_and_then_hears_everything() -> None:
    world = World(started=False)
    newcomer, returning = world.hub.join("1", "new"), world.hub.join("1", "back", EventId(7, 1))
    await run_ready_tasks()
    assert not world.queries
    world.hub.start(EventId(7, 3), [event(number) for number in (1, 2, 3)])
    await world.answer()
    assert (await heard(newcomer))[0]["type"] == "initial-load"
    assert ids(await heard(returning)) == ["7-1", "7-2", "7-3"]


@async_test
async def test_a_gap_is_one_fresh_snapshot_per_match_for_all_who_were_live() -> None:
    world = World()
    clients = [await world.live("1", f"c{number}") for number in range(3)] + [await world.live("2")]
    world.hub.gap(EventId(8, 1), "a test")
    world.hub.deliver([Event("match_change", event(1).payload, "8-2")])
    await run_ready_tasks()
    assert len(world.queries) == 2
    for _ in range(2):
        await world.answer(b'"fresh"')
    for client in clients[:3]:
        first, *rest = await heard(client)
        assert (first["type"], first["id"], first["data"]) == ("resync", "8-1", "fresh")
        assert ids(rest) == ["8-2"]
    assert [message["type"] for message in await heard(clients[3])] == ["resync"]


@async_test
async def test_a_gap_while_the_snapshot_is_taken_makes_it_be_taken_again() -> None:
    world = World()
    client = world.hub.join("1", "c")
    await run_ready_tasks()
    world.hub.gap(EventId(8, 1), "a test")
    await world.answer(b'"stale"')
    await world.answer(b'"fresh"')
    [first] = await heard(client)
    assert (first["data"], first["id"]) == ("fresh", "8-1")


@async_test
async def test_when_there_is_no_end_of_gaps_the_client_is_told_to_come_back() -> None:
    world = World()
    client = world.hub.join("1", "c")
    for epoch in range(8, 11):
        await run_ready_tasks()
        world.hub.gap(EventId(epoch, 1), "a test")
        await world.answer()
    assert client.closing.result() == SLOW


@async_test
async def test_a_client_id_belongs_to_the_newest_and_the_older_ones_leaving_touches_only_itself() -> None:
    world = World()
    older = await world.live()
    newer = await world.live()
    assert older.closing.result() == REPLACED
    world.hub.leave(older)
    world.hub.deliver([event(1)])
    assert ids(await heard(newer)) == ["7-1"]
    assert len(world.hub) == 1
    world.hub.leave(newer)
    assert len(world.hub) == 0


@async_test
async def test_who_left_while_its_snapshot_was_taken_is_not_waited_for_and_harms_nobody() -> None:
    world = World()
    gone, stays = world.hub.join("1", "gone"), world.hub.join("1", "stays")
    await run_ready_tasks()
    world.hub.leave(gone)
    await world.answer()
    assert await heard(gone) == []
    assert len(await heard(stays)) == 1


@async_test
async def test_nothing_is_written_to_who_was_ahead_until_there_is_something_new() -> None:
    world = World()
    world.hub.deliver([event(1)])
    client = world.hub.join("1", "c", EventId(7, 3))
    await heard(client)
    written: list[list[str | None]] = []

    def write(burst: MessageBatch) -> bool:
        written.append([message.event_id for message in burst.messages])
        return True

    client.write = write
    world.hub.deliver([event(2), event(3)])
    world.hub.deliver([event(4), event(5)])
    assert written == [["7-4", "7-5"]]


@async_test
async def test_who_does_not_read_is_closed_past_its_bound_and_counted_and_the_others_hear_on() -> None:
    world = World(queue=2_000)
    slow, quick = await world.live(name="slow"), await world.live(name="quick")
    for number in range(1, 40):
        world.hub.deliver([event(number)])
        assert ids(await heard(quick)) == [f"7-{number}"]
    assert slow.closing.result() == SLOW
    assert world.hub.slow_closes == 1
    assert sum(len(json.dumps(message)) for message in await heard(slow)) < 2_500


@async_test
async def test_an_event_larger_than_the_bound_is_sent_all_the_same() -> None:
    world = World(queue=1_000)
    client = await world.live()
    world.hub.deliver([event(1, pad=5_000)])
    assert ids(await heard(client)) == ["7-1"]
    assert not client.closing.done()


@async_test
async def test_a_payload_without_a_match_is_nobodys_but_counts() -> None:
    world = World()
    client = await world.live()
    world.hub.deliver([Event("match_change", msgspec.Raw(b'"text"'), "7-1")])
    world.hub.deliver([event(2)])
    assert ids(await heard(client)) == ["7-2"]
    assert ids(await heard(world.hub.join("1", "d", EventId(7, 1)))) == ["7-1", "7-2"]
