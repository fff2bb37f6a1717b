"""Clients that don't read, or whose connection is cut."""

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
Connect = Callable[[RawClient, str], RawClient]


def by_websocket(client: RawClient, match: str) -> RawClient:
    return client.open_websocket(match, "stuck")


def by_event_stream(client: RawClient, match: str) -> RawClient:
    client.send(b"GET /api/matches/%b/events HTTP/1.1\r\nHost: x\r\n\r\n" % match.encode())
    client.read_until(b"\r\n\r\n")
    return client


over_both = pytest.mark.parametrize("connect", [by_websocket, by_event_stream])


@over_both
def test_a_client_that_never_reads_is_closed_and_others_of_its_match_miss_nothing(
    server: Server, connect: Connect
) -> None:
    match = f"stuck-{connect.__name__}"
    with (
        server.unaffected(),
        closing(psycopg.connect(server.database, autocommit=True)) as connection,
        server.app.client(match, "reads") as reads,
        connect(RawClient(server.port, window=4096), match) as stuck,
    ):
        reads.wait_for_initial_load()
        wait_until(lambda: server.clients == 3)
        sent = 0
        while server.clients == 3:
            connection.execute(LARGE, {"match": match, "first": sent + 1, "last": sent + 20})
            sent += 20
            assert len(reads.wait_for_updates(sent)) == sent < 20_000
        assert server.clients == 2
        stuck.read_all()
        assert reads.code is None


@pytest.mark.long
@pytest.mark.timeout(180)
@over_both
def test_a_client_whose_connection_is_cut_is_closed_and_others_are_not_affected(
    server: Server, connect: Connect
) -> None:
    with server.unaffected(settle_seconds=20), connect(RawClient(server.port), "gone") as gone:
        wait_until(lambda: server.clients == 2)
        gone.cut()
        # A WebSocket by its pings, an event stream by the kernel after 60 s.
        wait_until(lambda: server.clients == 1, 80, "the client is closed")


def test_an_event_larger_than_a_clients_queue_is_still_delivered(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | {"CLIENT_QUEUE_BYTES": "1000"}).wait_until_ready()
    with app.client(1) as client, by_event_stream(RawClient(app.port), "1") as events:
        client.wait_for_initial_load()
        for number in range(1, 4):
            connection.execute(LARGE, {"match": "1", "first": number, "last": number})
            client.wait_for_updates(number)
            events.read_until(b'"data":"' + b"x" * 7000)
        last = client.updates[-1]["id"]
        connection.execute(LARGE, {"match": "1", "first": 4, "last": 4})
        with app.client(1, "returns", f"?last_event_id={last}") as returns:
            assert [update["data"] for update in returns.wait_for_updates(1)] == ["x" * 7000]
            assert returns.wait_for_initial_load()["recovered"] is True
