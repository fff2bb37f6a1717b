"""One connection for several matches, by WebSocket and by event stream, on real servers."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import jwt
import psycopg
import pytest

from tests.conftest import StartApp, fresh_database, fresh_redis_place, redis_mode
from tests.support.programs import App, Listener, ReceivedMessages
from tests.support.several_matches import Connection, EventStreamOfSeveral
from tests.support.waiting import wait_until

SECRET = "a secret that is long enough for HS256"


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return the settings of a database and a Redis with a listener, for all tests here."""
    with fresh_database(request) as database, fresh_redis_place(request) as redis_place:
        settings = redis_mode(database, redis_place)
        with Listener(tmp_path_factory.mktemp("listener"), settings) as listener:
            listener.wait_until_aligned()
            yield settings | {"database": database}


@pytest.fixture
def connection(place: dict[str, str]) -> Iterator[psycopg.Connection]:
    with closing(psycopg.connect(place["database"], autocommit=True)) as connection:
        yield connection


@pytest.fixture
def settings(place: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in place.items() if name != "database"}


@pytest.fixture
def app(settings: dict[str, str], start_app: StartApp) -> App:
    return start_app(settings).wait_until_ready()


@pytest.fixture
def secured(settings: dict[str, str], start_app: StartApp) -> App:
    return start_app(settings | {"WS_JWT_SECRET": SECRET}).wait_until_ready()


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", **claims}, SECRET)


def notify(connection: psycopg.Connection, *events: tuple[object, int]) -> None:
    """Commit events of matches, each with its number, in one transaction."""
    with connection.transaction():
        for match, number in events:
            payload = json.dumps({"match_id": match, "operation": "UPDATE", "data": {"id": 1, "n": number}})
            connection.execute("SELECT pg_notify('match_change', %s)", [payload])


def heard(client: ReceivedMessages) -> list[tuple[object, int]]:
    return [(update["match_id"], update["data"]["n"]) for update in client.updates]


def loads(client: ReceivedMessages) -> list[tuple[object, bool]]:
    return [(load["match_id"], load["recovered"]) for load in client.of_type("initial-load")]


# ---- WebSocket


def test_one_connection_hears_the_matches_that_it_asks_for_in_commit_order_over_all(
    app: App, connection: psycopg.Connection
) -> None:
    with Connection(app.port) as client:
        client.subscribe(1, "two", 3)
        client.wait_for(3, "initial-load")
        events = [(match, number) for number in range(20) for match in (3, 1, "other", "two")]
        for start in range(0, len(events), 16):
            notify(connection, *events[start : start + 16])
        client.wait_for_updates(60)
        assert heard(client) == [event for event in events if event[0] != "other"]
        assert {load["match_id"]: load["data"] for load in client.of_type("initial-load")} == {
            1: None,
            "two": None,
            3: None,
        }


def test_after_unsubscribed_nothing_of_the_match_comes_and_the_others_go_on(
    app: App, connection: psycopg.Connection
) -> None:
    with Connection(app.port) as client:
        client.subscribe(1, 2)
        client.wait_for(2, "initial-load")
        notify(connection, (1, 1), (2, 2))
        client.send("unsubscribe", match_id=1)
        client.send("unsubscribe", match_id="never subscribed")
        client.wait_for(1, "unsubscribed", match_id="never subscribed")
        notify(connection, (1, 3), (2, 4))
        wait_until(lambda: (2, 4) in heard(client))
        fence = client.messages.index({"type": "unsubscribed", "match_id": 1})
        assert all(message.get("match_id") != 1 for message in client.messages[fence + 1 :])
        assert (1, 3) not in heard(client)


def test_each_match_resumes_from_an_id_of_its_own_and_a_second_subscribe_starts_over(
    app: App, connection: psycopg.Connection
) -> None:
    with Connection(app.port) as client:
        client.subscribe(1, 2)
        client.wait_for(2, "initial-load")
        notify(connection, *[(1 + number % 2, number) for number in range(8)])
        ids = [update["id"] for update in client.wait_for_updates(8)]
    with Connection(app.port) as client:
        client.send("subscribe", match_id=1, last_event_id=ids[4])
        client.send("subscribe", match_id=2, last_event_id=ids[1])
        client.wait_for_updates(4)
        assert [load["id"] for load in client.wait_for(2, "initial-load", recovered=True)] == [ids[4], ids[1]]
        assert sorted(heard(client)) == [(1, 6), (2, 3), (2, 5), (2, 7)]
        client.send("subscribe", match_id=1, last_event_id="not an id")
        client.wait_for(1, "initial-load", match_id=1, recovered=False)
        notify(connection, (1, 9))
        client.wait_for_updates(5)
        assert heard(client)[4:] == [(1, 9)], "once"


def test_what_is_no_request_is_refused_and_ends_nothing(app: App, connection: psycopg.Connection) -> None:
    with Connection(app.port) as client:
        client.subscribe(1)
        others = ["", "[", "[" * 4000, "null", "7", '"ping"', "{}", '{"type":7}', '{"type":"publish"}']
        for text in others:
            client.socket.send(text)
        assert client.wait_for(len(others), "refused", code="malformed")
        for match in (None, "", True, [1], {"id": 1}):
            client.send("subscribe", match_id=match)
            client.send("unsubscribe", match_id=match)
        client.wait_for(len(others) + 10, "refused", code="malformed")
        client.send("pong")
        client.send("ping")
        client.wait_for(1, "pong")
        notify(connection, (1, 1))
        client.wait_for_updates(1)
        assert not any("match_id" in refusal for refusal in client.of_type("refused"))
        assert len(client.of_type("refused")) == len(others) + 10


def test_128_subscriptions_at_once_are_accepted_and_no_more(app: App, connection: psycopg.Connection) -> None:
    with Connection(app.port) as client:
        client.subscribe(*range(128))
        client.wait_for(128, "initial-load")
        time.sleep(0.2)  # for two more requests within the rate
        client.subscribe(128)
        client.wait_for(1, "refused", match_id=128, code="too-many")
        client.send("unsubscribe", match_id=0)
        client.subscribe(128)
        client.wait_for(1, "initial-load", match_id=128)
        notify(connection, *[(number, number) for number in range(129)])
        client.wait_for_updates(128)
        assert heard(client) == [(number, number) for number in range(1, 129)]


def test_subscribes_that_come_faster_than_the_rate_are_refused_and_end_nothing(app: App) -> None:
    with Connection(app.port) as client:
        for _ in range(150):
            client.subscribe(1)
        wait_until(lambda: client.of_type("refused"))
        assert {refusal["code"] for refusal in client.of_type("refused")} == {"too-fast"}
        client.send("unsubscribe", match_id=1)
        client.wait_for(1, "unsubscribed")
        time.sleep(0.3)
        client.subscribe(2)
        client.wait_for(1, "initial-load", match_id=2)


def test_the_same_client_id_replaces_the_older_connection_but_none_for_one_match(app: App) -> None:
    with Connection(app.port, "phone") as older, app.client(1, "phone") as single:
        older.subscribe(1)
        older.wait_for(1, "initial-load")
        single.wait_for_initial_load()
        with Connection(app.port, "phone") as newer:
            assert older.wait_until_closed() == 3510
            newer.subscribe(1)
            newer.wait_for(1, "initial-load")
            assert single.code is None
            wait_until(lambda: app.get("/readyz")[1]["clients"] == 2)


# ---- tokens


def test_a_match_that_the_token_does_not_permit_is_refused_alone(secured: App, connection: psycopg.Connection) -> None:
    with Connection(secured.port, query=f"?token={token(matches=[1, 'two'])}") as client:
        client.subscribe(1, 2, "two")
        client.wait_for(2, "initial-load")
        [refusal] = client.wait_for(1, "refused")
        assert refusal == {
            "type": "refused",
            "match_id": 2,
            "code": "forbidden",
            "reason": "the token is not good for this match",
        }
        notify(connection, (1, 1), (2, 2), ("two", 3))
        client.wait_for_updates(2)
        assert heard(client) == [(1, 1), ("two", 3)]


def test_a_new_token_moves_the_end_and_ends_what_it_does_not_permit(
    secured: App, connection: psycopg.Connection
) -> None:
    soon = int(time.time()) + 3
    with Connection(secured.port, query=f"?token={token(exp=soon)}") as client:
        client.subscribe(1, 2)
        client.wait_for(2, "initial-load")
        client.send("token", token=token(exp=soon + 60, matches=[2, 3]))
        client.wait_for(1, "renewed")
        client.wait_for(1, "refused", match_id=1, code="forbidden")
        client.subscribe(3)
        client.wait_for(1, "initial-load", match_id=3)
        wait_until(lambda: time.time() > soon + 1)
        notify(connection, (1, 1), (2, 2), (3, 3))
        client.wait_for_updates(2)
        assert heard(client) == [(2, 2), (3, 3)]
        assert client.code is None
        assert loads(client) == [(1, False), (2, False), (3, False)], "what stays does not start over"


def test_a_token_that_is_not_valid_or_of_somebody_else_changes_nothing(secured: App) -> None:
    soon = int(time.time()) + 3
    with Connection(secured.port, query=f"?token={token(exp=soon)}") as client:
        for given in ("", "x", 7, token(exp=1), token(sub="bob"), jwt.encode({}, SECRET)):
            client.send("token", token=given)
        client.wait_for(6, "refused", code="token")
        assert not client.of_type("renewed")
        assert client.wait_until_closed() == 3000
        assert time.time() >= soon


# ---- event stream


def test_an_event_stream_starts_all_matches_at_one_moment_and_gives_no_id_before_the_last_load(
    app: App, connection: psycopg.Connection
) -> None:
    with EventStreamOfSeveral(app.port, [("match", 1), ("match", "two"), ("match", 3)]) as client:
        wait_until(lambda: len(client.of_type("initial-load")) == 3)
        notify(connection, (3, 1), (1, 2), ("other", 3), ("two", 4))
        client.wait_for_updates(3)
        assert heard(client) == [(3, 1), (1, 2), ("two", 4)]
        lines = client.with_id_lines()
        assert [event_id for event_id, _ in lines[:2]] == [None, None]
        assert lines[2][0]
        assert [event_id for event_id, _ in lines[3:]] == [message["id"] for _, message in lines[3:]]


def test_an_event_stream_resumes_each_match_after_its_own_id_and_all_after_the_header(
    app: App, connection: psycopg.Connection
) -> None:
    with EventStreamOfSeveral(app.port, [("match", 1), ("match", 2)]) as client:
        wait_until(lambda: len(client.of_type("initial-load")) == 2)
        notify(connection, *[(1 + number % 2, number) for number in range(8)])
        ids = [update["id"] for update in client.wait_for_updates(8)]
    several: list[tuple[str, object]] = [("match", 1), ("after", ids[4]), ("match", 2), ("after", ids[1]), ("match", 3)]
    with EventStreamOfSeveral(app.port, several) as client:
        client.wait_for_updates(4)
        assert loads(client) == [(1, True), (2, True), (3, False)]
        assert heard(client) == [(2, 3), (2, 5), (1, 6), (2, 7)], "in commit order"
        # An id of before all of them could not stand for match 1, which has more already.
        id_lines = [event_id for event_id, _ in client.with_id_lines()]
        assert id_lines == [None, None, None, None, ids[5], ids[6], ids[7]]
    with EventStreamOfSeveral(app.port, several, {"Last-Event-ID": ids[5]}) as client:
        client.wait_for_updates(2)
        assert loads(client) == [(1, True), (2, True), (3, True)]
        assert heard(client) == [(1, 6), (2, 7)]
        assert [event_id for event_id, _ in client.with_id_lines()] == [None, None, ids[5], ids[6], ids[7]]


def test_an_event_stream_serves_what_the_token_permits_and_refuses_the_rest(
    secured: App, connection: psycopg.Connection
) -> None:
    permitted = ("token", token(matches=[1]))
    with EventStreamOfSeveral(secured.port, [("match", 2), ("match", 1), permitted]) as client:
        wait_until(lambda: client.of_type("initial-load"))
        [refusal] = client.of_type("refused")
        assert (refusal["match_id"], refusal["code"]) == (2, "forbidden")
        assert not any(
            event_id is not None and message["type"] == "refused" for event_id, message in client.with_id_lines()
        )
        notify(connection, (2, 1), (1, 2))
        client.wait_for_updates(1)
        assert heard(client) == [(1, 2)]
    assert secured.get(f"/api/matches/events?match=2&match=3&token={permitted[1]}")[0] == 403
    assert secured.get("/api/matches/events?match=1")[0] == 401


def test_an_event_stream_with_no_match_too_many_or_a_malformed_one_is_refused(app: App) -> None:
    many = "&".join(f"match={number}" for number in range(129))
    for query in ("", "match=", "after=7-1", "after=7-1&match=1", many):
        status, body = app.get(f"/api/matches/events?{query}")
        assert status == 400, query
        assert set(body) == {"error", "server"}
    with EventStreamOfSeveral(app.port, [("match", number) for number in range(128)]) as client:
        wait_until(lambda: len(client.of_type("initial-load")) == 128)


def test_in_postgresql_mode_everything_is_the_same_without_ids(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    with Connection(app.port) as client, EventStreamOfSeveral(app.port, [("match", 1), ("match", 2)]) as stream:
        client.subscribe(1, 2)
        client.wait_for(2, "initial-load")
        wait_until(lambda: len(stream.of_type("initial-load")) == 2)
        notify(connection, (2, 1), (1, 2), (2, 3))
        client.wait_for_updates(3)
        stream.wait_for_updates(3)
        assert heard(client) == heard(stream) == [(2, 1), (1, 2), (2, 3)]
        assert [event_id for event_id, _ in stream.with_id_lines()] == [None, "", None, None, None]
