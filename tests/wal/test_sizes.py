"""Rows and payloads of all sizes commit under both sources; what arrives whole and what without data is documented."""

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.conftest import RedisPlace, StartListener
from tests.support.postgres_cluster import PostgresServer
from tests.support.schema import install
from tests.support.waiting import wait_until

SIZES = (100, 7_999, 8_000, 100_000, 1_000_000, 2_000_000)
# docs/triggers.md#by-the-wal: how large a payload is whole
LIMITS = {"notify": 7_999, "wal": 1_048_576}
OVERHEAD = 200  # of a row's payload, at most


@pytest.fixture(params=["notify", "wal"])
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(primary: PostgresServer, source: str) -> Any:
    with closing(primary.connect()) as session:
        install(session, source)
        session.execute("CREATE TABLE t (id int, match_id int, text text)")
        session.execute("SELECT notifymux.watch('t', channel => 'match_change')")
        yield session


@pytest.fixture
def payloads(
    settings: dict[str, str], redis_place: RedisPlace, source: str, start_listener: StartListener
) -> Callable[[int], list[Any]]:
    """Starts a listener; returns what waits for a number of events in the stream, and returns their payloads."""
    start_listener(settings | {"SOURCE": source}).wait_until_aligned()

    def found() -> list[Any]:
        with closing(redis_place.client()) as client:
            entries: Any = client.xrange(f"{{{redis_place.namespace}}}:log")
        events = [json.loads(fields[b"event"]) for _, fields in entries]
        return [event["payload"] for event in events if event["channel"] == "match_change"]

    def wait(count: int) -> list[Any]:
        wait_until(lambda: len(found()) >= count)
        return found()

    return wait


def test_rows_of_all_sizes_commit_and_are_announced_whole_up_to_the_limit_and_then_without_data(
    session: psycopg.Connection, payloads: Callable[[int], list[Any]], source: str
) -> None:
    for number, size in enumerate(SIZES):
        session.execute("INSERT INTO t VALUES (%s, 7, repeat('x', %s))", [number, size])
    for number, (size, told) in enumerate(zip(SIZES, payloads(len(SIZES)), strict=True)):
        assert (told["operation"], told["match_id"], told["new_id"]) == ("INSERT", 7, number)
        is_whole = told["data"] == {"id": number, "match_id": 7, "text": "x" * size}
        assert is_whole == (size + OVERHEAD < LIMITS[source]), size
        assert is_whole or told["data"] is None
    assert session.execute("SELECT array_agg(length(text) ORDER BY id) FROM t").fetchone() == ([*SIZES],)


def test_payloads_of_ones_own_are_whole_up_to_the_very_limit(
    session: psycopg.Connection, payloads: Callable[[int], list[Any]], source: str
) -> None:
    limit = LIMITS[source]
    for size in (limit, limit + 1, 2_000_000):
        payload = json.dumps({"match_id": 7, "data": ""})
        payload = json.dumps({"match_id": 7, "data": "x" * (size - len(payload))})
        assert len(payload) == size
        session.execute("SELECT notifymux.notify('match_change', %s)", [payload])
    whole, *rest = payloads(3)
    assert len(json.dumps(whole)) == limit
    assert rest == [{"match_id": 7, "data": None}] * 2
