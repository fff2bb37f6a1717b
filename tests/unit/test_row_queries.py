"""Updates that carry the result of a query: their order, and what clients receive that start or resume meanwhile."""

import asyncio
from typing import Any

import msgspec
import pytest

from app.broadcast.client import CloseCode
from app.broadcast.hub import Hub
from app.broadcast.match_view import MatchView
from app.broadcast.queried_update import QueriedUpdate
from app.broadcast.query_pool import QueryResult
from app.broadcast.router import Router
from app.core.query_files import parse_query
from notifymux.event import Event, EventId
from notifymux.stream_reader import Take
from tests.support.loops import async_test, run_ready_tasks
from tests.unit.test_hub import received

FILES = {
    "row": parse_query("row", "SELECT %(new_id)s"),
    "clock": parse_query("clock", "-- message: clock-update\n-- spread: true\n-- deletes: true\nSELECT 1"),
}


class World:
    """A hub whose snapshots are empty and whose row queries wait for an answer."""

    def __init__(self, timeout: float = 60.0, replay_bytes: int = 10_000) -> None:
        router = Router("match_id", queries=FILES)
        self.hub = Hub(
            router,
            self._snapshot,
            self._range,
            10_000,
            replay_bytes,
            snapshot_pool=2,
            snapshot_timeout=5.0,
            fetch_row=self._fetch_row,
            row_timeout=timeout,
        )
        self.queries: list[tuple[QueriedUpdate, asyncio.Future[QueryResult]]] = []
        self.stream: list[Event] = []
        self.hub.start(EventId(7, 0), [])

    async def _snapshot(self, _: MatchView) -> QueryResult:
        return QueryResult(b"{}")

    async def _range(self, after: EventId, until: EventId, take: Take) -> bool:
        return take([event for event in self.stream if event.parsed_id and after < event.parsed_id <= until])

    async def _fetch_row(self, update: QueriedUpdate, _: str, within: float) -> QueryResult:
        assert 0 < within <= 60
        self.queries.append((update, asyncio.get_running_loop().create_future()))
        return await self.queries[-1][1]

    async def deliver(self, *events: tuple[int, str, int]) -> None:
        made = [
            Event(channel, msgspec.Raw(b'{"match_id":1,"operation":"UPDATE","new_id":%d}' % row), f"7-{number}")
            for number, channel, row in events
        ]
        self.stream += made
        self.hub.deliver(made)
        await run_ready_tasks()

    async def answer(self, data: bytes = b'{"n":1}', error: str | None = None) -> int:
        """Answer the oldest query; return the number of its event."""
        update, future = self.queries.pop(0)
        future.set_result(QueryResult(data, error))
        await run_ready_tasks()
        assert update.parsed_id is not None
        return update.parsed_id.sequence

    async def join(self, last: int | None = None) -> Any:
        client = self.hub.join("1", f"client {last}", None if last is None else EventId(7, last))
        await run_ready_tasks()
        return client


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [int(message["id"].partition("-")[2]) for message in messages]


@async_test
async def test_an_update_carries_the_result_and_those_behind_it_wait() -> None:
    world = World()
    client = await world.join()
    await received(client)
    await world.deliver((1, "plain", 1), (2, "row", 5), (3, "plain", 1))
    assert numbers(await received(client)) == [1]
    await world.answer(b'{"id":5,"a":7}')
    [update, plain] = await received(client)
    assert update == {
        "type": "row", "id": "7-2", "channel": "row", "match_id": 1, "operation": "UPDATE", "data": {"id": 5, "a": 7}
    }  # fmt: skip
    assert plain["id"] == "7-3"


@async_test
async def test_keys_that_are_spread_stand_beside_the_type_and_overwrite_nothing() -> None:
    world = World()
    client = await world.join()
    await received(client)
    await world.deliver((1, "clock", 5))
    await world.answer(b'{"events":[1],"server_time_ms":7,"id":"x","type":"resync"}')
    assert await received(client) == [
        {"type": "clock-update", "id": "7-1", "channel": "clock", "match_id": 1, "operation": "UPDATE", "data": None,
         "events": [1], "server_time_ms": 7}
    ]  # fmt: skip


@async_test
async def test_a_burst_of_one_row_costs_two_queries_and_the_last_one_carries_the_newest_id() -> None:
    world = World()
    client = await world.join()
    await received(client)
    for number in range(1, 101):
        await world.deliver((number, "row", 5))
    assert [await world.answer(), await world.answer()] == [1, 100]
    assert numbers(await received(client)) == [1, 100]
    assert not world.queries


@async_test
async def test_a_query_that_fails_or_comes_too_late_lets_the_payloads_data_out_with_an_error() -> None:
    world = World(timeout=0.2)
    client = await world.join()
    await received(client)
    await world.deliver((1, "row", 5))
    await world.answer(b"null", "it failed")
    await world.deliver((2, "row", 5), (3, "clock", 1))
    await asyncio.sleep(0.3)
    await world.answer(b"null", "it took too long")
    await world.deliver((4, "clock", 1))
    await world.answer(b"[1]")
    messages = await received(client)
    assert [message["error"] for message in messages] == [
        "it failed",
        "it took too long",
        "the queries before this one took too long; fetch the state",
        "the query's result is not a JSON object; fetch the state",
    ]
    assert messages[0]["data"] == {"match_id": 1, "operation": "UPDATE", "new_id": 5}


@async_test
async def test_no_query_runs_for_a_match_that_nobody_watches_and_a_client_that_resumes_over_it_gets_the_newest() -> (
    None
):
    world = World()
    await world.deliver((1, "row", 5), (2, "row", 6), (3, "plain", 1), (4, "row", 5))
    assert not world.queries
    client = await world.join(0)
    assert await world.answer() == 2
    await world.deliver((5, "row", 5), (6, "plain", 1))
    assert [await world.answer(), await world.answer()] == [4, 5]
    assert not world.queries
    messages = await received(client)
    assert messages[0]["recovered"] is True
    assert numbers(messages[1:]) == [2, 3, 4, 5, 6]


@async_test
async def test_a_client_that_resumes_while_updates_wait_receives_each_once() -> None:
    for replay_bytes in (10_000, 600):
        world = World(replay_bytes=replay_bytes)
        other = await world.join()
        await received(other)
        await world.deliver((1, "plain", 1), (2, "row", 5), (3, "row", 6), (4, "plain", 1), (5, "row", 6))
        client = await world.join(0)
        assert numbers((await received(client))[1:]) == [1]
        await world.answer()
        await world.answer()
        assert numbers(await received(client)) == [2, 4, 5]


@async_test
async def test_a_gap_and_the_last_client_drop_what_waits() -> None:
    world = World()
    client = await world.join()
    await world.deliver((1, "row", 5), (2, "row", 5))
    world.hub.gap(EventId(9, 0), "a test")
    await world.answer()
    messages = await received(client)
    assert [message["type"] for message in messages] == ["initial-load", "resync"]
    await world.deliver((3, "row", 5))
    world.hub.leave(client)
    await world.answer()
    assert not world.queries


@async_test
async def test_a_client_that_starts_with_a_snapshot_does_not_receive_what_it_contains() -> None:
    world = World()
    other = await world.join()
    await received(other)
    await world.deliver((1, "row", 5), (2, "plain", 1))
    client = world.hub.join("1", "new")
    await run_ready_tasks()
    [first] = await received(client)
    assert (first["id"], first["recovered"]) == ("7-2", False)
    await world.answer()
    assert numbers(await received(other)) == [1, 2]
    await world.deliver((3, "plain", 1))
    assert numbers(await received(client)) == [3]


@async_test
async def test_more_updates_than_the_bound_go_out_without_their_queries() -> None:
    world = World()
    client = await world.join()
    await received(client)
    await world.deliver(*((number, "row", number) for number in range(1, 1003)))
    messages = await received(client)
    assert numbers(messages) == list(range(1, len(messages) + 1))
    assert messages[-1]["error"].startswith("too many updates")


@async_test
async def test_a_bug_in_a_query_closes_its_clients_so_that_they_come_back(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    client, other = await world.join(), world.hub.join("2", "other")
    await world.deliver((1, "row", 5))
    world.queries.pop()[1].set_exception(ZeroDivisionError)
    await run_ready_tasks()
    assert client.closing.result() == CloseCode.BUG
    assert not other.closing.done()
    assert "a bug left a match without its updates" in caplog.text
