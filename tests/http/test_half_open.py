"""Clients that don't read, or are gone without having said so."""

from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest

from tests.conftest import StartApp, StartListener
from tests.http.raw_client import RawClient
from tests.http.server import Server
from tests.support.waiting import wait_until

LARGE = """
    SELECT pg_notify('match_change',
        json_build_object('match_id', %(match)s::text, 'data', repeat('x', 7000), 'n', n)::text)
    FROM generate_series(%(first)s::int, %(last)s::int) n
"""
Door = Callable[[RawClient, str], RawClient]


def over_websocket(stranger: RawClient, match: str) -> RawClient:
    return stranger.enter(match, "stuck")


def as_events(stranger: RawClient, match: str) -> RawClient:
    stranger.say(b"GET /api/matches/%b/events HTTP/1.1\r\nHost: x\r\n\r\n" % match.encode())
    stranger.until(b"\r\n\r\n")
    return stranger


at_both_doors = pytest.mark.parametrize("door", [over_websocket, as_events])


@at_both_doors
def test_who_never_reads_is_closed_and_who_hears_the_same_match_misses_nothing(house: Server, door: Door) -> None:
    match = f"stuck-{door.__name__}"
    with (
        house.unharmed(),
        closing(psycopg.connect(house.database, autocommit=True)) as connection,
        house.app.client(match, "reads") as reads,
        door(RawClient(house.port, window=4096), match) as stuck,
    ):
        reads.wait_for_initial_load()
        told, lines = 0, len(house.app.lines)
        while not any("is too slow and is closed" in line for line in house.app.lines[lines:]):
            connection.execute(LARGE, {"match": match, "first": told + 1, "last": told + 20})
            told += 20
            assert len(reads.wait_for_updates(told)) == told < 5000
        wait_until(lambda: house.clients == 2)
        stuck.rest()
        assert reads.code is None


@pytest.mark.long
@pytest.mark.timeout(180)
@at_both_doors
def test_who_is_gone_without_a_word_is_noticed_and_costs_nobody_anything(house: Server, door: Door) -> None:
    with house.unharmed(settles_within=20), door(RawClient(house.port), "gone") as gone:
        wait_until(lambda: house.clients == 2)
        gone.vanish()
        # Over WebSocket by its pings, as events by the kernel, after 60 s.
        wait_until(lambda: house.clients == 1, 80, "the client that is gone is closed")


def test_an_event_larger_than_a_clients_queue_is_delivered_all_the_same(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | {"CLIENT_QUEUE_BYTES": "1000"}).wait_until_ready()
    with app.client(1) as client, as_events(RawClient(app.port), "1") as events:
        client.wait_for_initial_load()
        for number in range(1, 4):
            connection.execute(LARGE, {"match": "1", "first": number, "last": number})
            client.wait_for_updates(number)
            events.until(b'"data":"' + b"x" * 7000)
        last = client.updates[-1]["id"]
        connection.execute(LARGE, {"match": "1", "first": 4, "last": 4})
        with app.client(1, "returns", f"?last_event_id={last}") as returns:
            assert [update["data"] for update in returns.wait_for_updates(1)] == ["x" * 7000]
            assert returns.wait_for_initial_load()["recovered"] is True
