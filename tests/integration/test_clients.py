"""How clients connect, reconnect and are closed, by WebSocket and by event stream, on real servers."""

import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import psycopg
import pytest
import redis
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import StartApp, fresh_database, fresh_redis_place, redis_mode
from tests.support.process import Process
from tests.support.programs import App, Client, EventStream, Listener, get
from tests.support.waiting import hold_for, wait_until

SECRET = "a secret that is long enough for HS256"
COUNTED = "SELECT to_json(nextval('asked')) WHERE %(match_id)s <> ''"
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
SLOW = COUNTED.replace("WHERE", "FROM pg_sleep(0.5) WHERE")

Connect = Callable[..., Client | EventStream]


def by_websocket(app: App, match: object = 1, query: str = "", headers: dict[str, str] | None = None) -> Client:
    return app.client(match, "c", query, headers=headers)


def by_event_stream(app: App, match: object = 1, query: str = "", headers: dict[str, str] | None = None) -> EventStream:
    return app.stream(match, query, headers)


over_both = pytest.mark.parametrize("connect", [by_websocket, by_event_stream])


def rejection(app: App, connect: Connect, query: str = "", headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Return the status and the reason with which a client is refused."""
    if connect is by_websocket:
        with pytest.raises(InvalidStatus) as caught:
            connect(app, 1, query, headers)
        response = caught.value.response
        return response.status_code, json.loads(response.body)["error"]
    with by_event_stream(app, 1, query, headers) as refused:
        refused.wait_until_ended()
        body = refused.lines[0]
        return refused.response.status, json.loads(body)["error"]


def notify(connection: psycopg.Connection, *numbers: int, channel: str = "match_change", match: object = 1) -> None:
    for number in numbers:
        payload = json.dumps({"match_id": match, "operation": "UPDATE", "data": {"id": 1, "n": number}})
        connection.execute("SELECT pg_notify(%s, %s)", [channel, payload])


def numbers(client: Client | EventStream) -> list[int]:
    return [update["data"]["n"] for update in client.updates]


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
        connection.execute("CREATE SEQUENCE asked")
        yield connection
        connection.execute("DROP SEQUENCE asked")


@pytest.fixture
def redis_settings(place: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in place.items() if name != "database"}


@pytest.fixture
def postgres_settings(redis_settings: dict[str, str]) -> dict[str, str]:
    return redis_settings | {"USE_REDIS_NOTIFIER": "false"}


# ---- reconnecting


@over_both
def test_a_client_that_reconnects_to_any_worker_gets_exactly_what_it_missed(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp, connect: Connect
) -> None:
    app = start_app(redis_settings, workers=2).wait_until_ready()
    with connect(app) as client:
        client.wait_for_initial_load()
        notify(connection, 1, 2, 3)
        last = client.wait_for_updates(3)[1]["id"]
    notify(connection, 4, match=2)
    notify(connection, 5)
    fresh = start_app(redis_settings).wait_until_ready()  # it has received none of them
    for number, each in enumerate([app, fresh], start=6):
        with connect(each, query=f"?last_event_id={last}") as client:
            assert client.wait_for_initial_load() == {
                "type": "initial-load",
                "recovered": True,
                "id": last,
                "match_id": 1,
                "data": None,
            }
            notify(connection, number)
            client.wait_for_updates(number - 3)
            assert numbers(client) == [3, *range(5, number + 1)]


@over_both
def test_an_id_from_the_future_is_a_resync_and_not_silence(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp, connect: Connect
) -> None:
    app = start_app(redis_settings | {"SNAPSHOT_QUERY": COUNTED}).wait_until_ready()
    with app.client(1) as client:
        client.wait_for_initial_load()
        notify(connection, 1)
        epoch = client.wait_for_updates(1)[0]["id"].partition("-")[0]
    with connect(app, query=f"?last_event_id={epoch}-999999999999") as client:
        client.wait_for_initial_load()
        resync = wait_until(lambda: client.of_type("resync"))[0]
        assert resync["data"] is not None
        notify(connection, 2)
        client.wait_for_updates(1)
        assert numbers(client) == [2]


def test_an_event_streams_header_takes_precedence_over_its_query(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings).wait_until_ready()
    with app.stream(1) as client:
        notify(connection, 1, 2)
        first, _ = client.wait_for_updates(2)
    with app.stream(1, "?last_event_id=1-1", {"Last-Event-ID": first["id"]}) as client:
        client.wait_for_updates(1)
        assert client.wait_for_initial_load()["recovered"]
        assert numbers(client) == [2]


@over_both
@pytest.mark.parametrize("line_break", [b"\n", b"\r", b"\r\n", b"\n\n"])
def test_a_published_text_of_several_lines_is_one_message(
    redis_settings: dict[str, str], start_app: StartApp, connect: Connect, line_break: bytes
) -> None:
    lines = [b"{", b'"channel": "match_change",', b'"payload": {"match_id":', b"1,", b'"data": {"n":', b"5}}", b"}"]
    with (
        connect(start_app(redis_settings).wait_until_ready()) as client,
        closing(redis.Redis.from_url(redis_settings["REDIS_URL"])) as publisher,
    ):
        client.wait_for_initial_load()
        publisher.publish(f"{redis_settings['REDIS_NAMESPACE']}:events", line_break.join(lines))
        client.wait_for_updates(1)
        assert numbers(client) == [5]
        if isinstance(client, EventStream):
            assert {line.partition(":")[0] for line in client.lines} <= {"retry", "id", "data", ""}


def last_event_id(stream: EventStream, before: str) -> str:
    """Return the id that an EventSource sends when it reconnects; it keeps that of the connection before."""
    ids = [line.partition(":")[2].strip() for line in stream.lines if line.startswith("id:")]
    return ids[-1] if ids else before


def test_an_event_stream_repeats_nothing_over_a_switch_to_direct_mode_and_back(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings).wait_until_ready()
    direct = start_app(redis_settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    last, heard = "", []
    with app.client(1, "witness") as first, direct.client(1, "witness") as second:
        for witness in (first, second):
            witness.wait_for_initial_load()
        for server, number in ((app, 1), (direct, 2), (app, 3)):
            headers = {"Last-Event-ID": last} if last else {}
            with server.stream(1, headers=headers) as client:
                client.wait_for_initial_load()
                notify(connection, number)
                client.wait_for_updates(1)
                heard += numbers(client)
                last = last_event_id(client, last)
            for witness in (first, second):  # an event that arrives later is none of before for the next client
                witness.wait_for_updates(number)
    assert heard == [1, 2, 3]


def test_events_that_the_worker_has_dropped_are_read_from_the_stream(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings | {"HISTORY_BYTES": "2000"}).wait_until_ready()
    with app.client(1) as client:
        client.wait_for_initial_load()
        notify(connection, *range(100))
        last = client.wait_for_updates(100)[9]["id"]
    with app.client(1, query=f"?last_event_id={last}") as client:
        client.wait_for_updates(90)
        assert client.wait_for_initial_load()["recovered"]
        assert numbers(client) == list(range(10, 100))


def test_if_some_missed_events_are_gone_the_client_gets_a_snapshot_and_never_a_part(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings | {"HISTORY_BYTES": "2000", "SNAPSHOT_QUERY": COUNTED}).wait_until_ready()
    with app.client(1) as client:
        client.wait_for_initial_load()
        notify(connection, *range(50))
        last = client.wait_for_updates(50)[9]["id"]
    with app.client(1, query=f"?last_event_id={last}") as client:
        assert client.wait_for_initial_load()["recovered"]
    with closing(redis.Redis.from_url(redis_settings["REDIS_URL"])) as stream:
        stream.xtrim(f"{{{redis_settings['REDIS_NAMESPACE']}}}:log", maxlen=20, approximate=False)
    epoch, _, sequence = last.partition("-")
    for past in (last, f"{int(epoch) - 1}-{sequence}", f"{int(epoch) + 5}-{sequence}", "'; DROP TABLE x --", "7-x"):
        with app.client(1, query=f"?last_event_id={quote(past)}") as client:
            assert not client.wait_for_initial_load()["recovered"], past
            assert isinstance(client.wait_for_initial_load()["data"], int)
            notify(connection, 100)
            client.wait_for_updates(1)
            assert set(numbers(client)) == {100}  # again, if it came after the snapshot that was reused


@over_both
def test_in_postgresql_mode_ids_are_null_and_nothing_is_recovered(
    postgres_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp, connect: Connect
) -> None:
    app = start_app(postgres_settings).wait_until_ready()
    with connect(app, query="?last_event_id=1795393970960-626") as client:
        assert client.wait_for_initial_load() == {
            "type": "initial-load",
            "recovered": False,
            "id": None,
            "match_id": 1,
            "data": None,
        }
        notify(connection, 1)
        assert client.wait_for_updates(1)[0]["id"] is None


# ---- a client's ping


def test_a_clients_ping_is_answered_at_once_and_nothing_else_is(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings).wait_until_ready()
    with app.client(1) as client:
        client.wait_for_initial_load()
        others = [
            "ping",
            "",
            "[",
            "[]" * 50,
            "[" * 4000,
            '"ping"',
            "null",
            '{"type":["ping"]}',
            "{}",
            '{"type":"pong"}',
        ]
        for text in (*others, '{"type":"ping"}', '{"n": 1e999, "type": "ping", "more": [{}]}'):
            client.socket.send(text)
        client.socket.send(b'{"type":"ping"}')
        wait_until(lambda: len(client.of_type("pong")) == 2)
        notify(connection, 1)
        client.wait_for_updates(1)
        assert client.of_type("pong") == [{"type": "pong"}] * 2


def test_a_clients_ping_is_answered_while_it_waits_for_its_snapshot(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings | {"SNAPSHOT_QUERY": SLOW.replace("0.5", "3")}).wait_until_ready()
    with app.client(1) as client:
        client.socket.send('{"type":"ping"}')
        wait_until(lambda: len(client.messages) == 2, what="the pong and the initial load")
        assert [message["type"] for message in client.messages] == ["pong", "initial-load"]


def test_a_client_that_sends_many_pings_and_reads_no_answer_is_closed_and_holds_up_no_other(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings).wait_until_ready()
    with app.client(1, "flood") as flood, app.client(1, "other") as other:
        other.wait_for_initial_load()
        with suppress(ConnectionClosed):
            for _ in range(2_000):
                flood.socket.send('{"type":"ping"}')
        # The kernel may reset the connection, since more pings arrive after the close frame.
        assert flood.wait_until_closed() in {1008, 1006}
        notify(connection, 1)
        other.wait_for_updates(1)


# ---- the event stream's form


def test_an_event_stream_has_the_same_messages_as_a_websocket_after_lines_with_their_ids(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings).wait_until_ready()
    with app.stream(1) as events, app.client(1) as client:
        client.wait_for_initial_load()
        events.wait_for_initial_load()
        connection.execute('SELECT pg_notify(\'match_change\', E\'{"match_id": 1,\\n"data": "a\\\\nb"}\')')
        notify(connection, 2)
        assert events.wait_for_updates(2) == client.wait_for_updates(2)
        wait_until(lambda: events.lines[-1] == "")
        headers = events.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-store, no-transform"
        assert int(headers["x-worker"]) == client.worker
        retry, empty, *lines = events.lines
        assert 1000 <= int(retry.removeprefix("retry: ")) <= 5000
        assert empty == ""
        groups = [lines[at : at + 3] for at in range(0, len(lines), 3)]
        for (number, data, end), message in zip(groups, events.messages, strict=True):
            assert number == f"id: {message['id']}"
            assert json.loads(data.removeprefix("data: ")) == message
            assert end == ""


def request(
    app: App, method: str, headers: dict[str, str], path: str = "/api/matches/1/events"
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


@pytest.mark.parametrize("setting", ["https://live.example.com", "https://Live.example.com:443/"])
def test_a_page_of_a_named_origin_may_read_event_streams_and_import_the_client(
    postgres_settings: dict[str, str], start_app: StartApp, setting: str
) -> None:
    app = start_app(postgres_settings | {"ALLOWED_ORIGINS": setting}).wait_until_ready()
    named, other = {"Origin": "https://live.example.com"}, {"Origin": "https://evil.example"}
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    assert request(app, "OPTIONS", named | preflight).status == 200
    assert request(app, "OPTIONS", other | preflight).status == 400
    with app.stream(1, headers=named) as events:
        assert events.response.headers["access-control-allow-origin"] == "https://live.example.com"
        events.wait_for_initial_load()
    with app.stream(1, headers=other) as events:
        assert events.response.status == 403
        assert "access-control-allow-origin" not in events.response.headers
    with app.client(1, headers=named) as client:
        client.wait_for_initial_load()


def test_a_path_with_a_slash_too_many_is_refused_by_notifymux_and_redirects_to_no_other_host(
    postgres_settings: dict[str, str], start_app: StartApp
) -> None:
    app = start_app(postgres_settings).wait_until_ready()
    for path in ("/api/matches/1/events/", "/readyz/", "/metrics/", "/static", "//evil.example/", "/nowhere"):
        assert request(app, "GET", {"Host": "evil.example"}, path).headers["location"] is None
        assert get(app.port, path) == (404, {"error": "Not Found", "server": "notifymux"}), path


def test_head_of_an_event_stream_does_not_hang(postgres_settings: dict[str, str], start_app: StartApp) -> None:
    assert request(start_app(postgres_settings).wait_until_ready(), "HEAD", {}).status == 204


def test_browsers_revalidate_a_page_and_its_files_so_that_two_versions_do_not_mix(
    postgres_settings: dict[str, str], start_app: StartApp
) -> None:
    app = start_app(postgres_settings).wait_until_ready()
    for path in ("/", "/static/index.js"):
        response = request(app, "GET", {}, path)
        assert (response.status, response.headers["cache-control"]) == (200, "no-cache")
        unchanged = {"If-None-Match": response.headers["etag"]}
        assert request(app, "GET", unchanged, path).status == (304 if "static" in path else 200)


# ---- snapshots


def test_one_query_serves_all_clients_that_connect_together_and_is_reused_until_an_event(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings | {"SNAPSHOT_QUERY": SLOW}).wait_until_ready()
    with ExitStack() as stack:
        clients = [stack.enter_context(app.client(1, f"c{number}")) for number in range(50)]
        assert {client.wait_for_initial_load()["data"] for client in clients} == {1}
        assert stack.enter_context(app.client(1, "later")).wait_for_initial_load()["data"] == 1
        assert stack.enter_context(app.client(2, "another")).wait_for_initial_load()["data"] == 2
        notify(connection, 1)
        clients[0].wait_for_updates(1)
        assert stack.enter_context(app.client(1, "after")).wait_for_initial_load()["data"] == 3


def test_events_during_a_slow_query_come_after_it(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings | {"SNAPSHOT_QUERY": SLOW}).wait_until_ready()
    with app.client(1) as client:
        wait_until(lambda: connection.execute(SLEEPING).fetchone() == (1,))
        notify(connection, *range(20))
        client.wait_for_updates(20)
        assert [message["type"] for message in client.messages] == ["initial-load"] + ["match-update"] * 20
        assert client.wait_for_initial_load()["data"] == 1
        assert numbers(client) == list(range(20))


def test_a_query_that_takes_too_long_is_an_error_and_updates_follow(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    query = {"SNAPSHOT_QUERY": "SELECT to_json(%(match_id)s::text) FROM pg_sleep(60)", "SNAPSHOT_TIMEOUT": "0.5"}
    app = start_app(redis_settings | query).wait_until_ready()
    with app.client(1) as client:
        loaded = client.wait_for_initial_load()
        assert loaded["data"] is None
        assert loaded["error"]
        notify(connection, 1)
        client.wait_for_updates(1)


# ---- slow clients


def has_last(client: Client, number: int) -> bool:
    return numbers(client)[-1:] == [number]


class PausedClient(Client):
    """A client that reads nothing until it is resumed."""

    resumed = False

    def _read(self) -> None:
        while not self.resumed:
            time.sleep(0.01)
        super()._read()


@pytest.mark.long
def test_a_slow_client_receives_the_last_state_of_a_clock_and_every_other_event(
    redis_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(redis_settings | {"CLIENT_QUEUE_BYTES": "4000000"}).wait_until_ready()
    ticks = """
        SELECT pg_notify('gameclock_change', json_build_object('match_id', 1, 'operation', 'UPDATE',
            'data', json_build_object('id', 5, 'n', n, 'pad', repeat('x', 4000)))::text)
        FROM generate_series(%s::int, %s::int) n"""
    with PausedClient(app.port, 1) as slow, app.client(1, "fast") as fast:
        for start in range(0, 10_000, 500):
            connection.execute(ticks, [start, start + 499])
            notify(connection, start)
            wait_until(partial(has_last, fast, start))
        slow.resumed = True
        # Not any update with this number: a clock has it too, and later clocks follow it.
        wait_until(lambda: [update["data"]["n"] for update in slow.of_type("match-update")][-1:] == [9500])
        assert slow.code is None
        clocks = [update["data"]["n"] for update in slow.of_type("gameclock-update")]
        assert len(clocks) < 9_000, "newer ones replaced queued ones"
        assert clocks[-1] == 9_999
        assert clocks == sorted(set(clocks))
        assert [update["data"]["n"] for update in slow.of_type("match-update")] == list(range(0, 10_000, 500))


def test_an_event_larger_than_the_queue_is_still_sent(
    postgres_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(postgres_settings | {"CLIENT_QUEUE_BYTES": "1024"}).wait_until_ready()
    with app.client(1) as client:
        client.wait_for_initial_load()
        for count in (1, 2, 3):
            connection.execute(
                "SELECT pg_notify('match_change', json_build_object('match_id', 1, 'data', repeat('x', 7000))::text)"
            )
            client.wait_for_updates(count)


def test_a_row_too_large_for_a_notification_reaches_the_client_without_its_data(
    postgres_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(postgres_settings).wait_until_ready()
    with app.client(1) as client:
        client.wait_for_initial_load()
        connection.execute(
            """SELECT pg_notify('match_change', '{"match_id": 1, "operation": "UPDATE", "data": null}')"""
        )
        [update] = client.wait_for_updates(1)
        assert (update["operation"], update["data"]) == ("UPDATE", None)


# ---- access control


def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem(key: rsa.RSAPrivateKey) -> str:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()


@pytest.mark.parametrize("algorithm", ["HS256", "RS256"])
def test_only_clients_with_a_valid_token_are_accepted_and_no_token_is_logged(
    postgres_settings: dict[str, str], start_app: StartApp, algorithm: str
) -> None:
    private = private_key()
    key: Any = SECRET if algorithm == "HS256" else private
    setting = {"WS_JWT_SECRET": SECRET} if algorithm == "HS256" else {"WS_JWT_PUBLIC_KEY": public_pem(private)}
    app = start_app(postgres_settings | setting | {"LOG_LEVEL": "debug"}).wait_until_ready()
    valid = jwt.encode({"matches": [1]}, key, algorithm)
    expired = jwt.encode({"exp": 1}, key, algorithm)
    other = jwt.encode({"matches": [2]}, key, algorithm)
    forged = jwt.encode({"matches": [1]}, "another secret that is long enough for HS256", "HS256")
    for connect in (by_websocket, by_event_stream):
        for given in ({"query": f"?token={valid}"}, {"headers": {"Authorization": f"Bearer {valid}"}}):
            with connect(app, 1, **given) as client:
                client.wait_for_initial_load()
        assert rejection(app, connect)[0] == 401
        assert rejection(app, connect, f"?token={expired}") == (401, "the token has expired")
        assert rejection(app, connect, f"?token={forged}")[0] == 401
        assert rejection(app, connect, f"?token={other}")[0] == 403
    assert not any(part in app.log for token in (valid, expired, other, forged) for part in token.split(".")[1:])
    assert SECRET not in app.log


@over_both
@pytest.mark.parametrize(
    ("text", "claim", "written", "received"),
    [
        ("a/b", "a/b", ['"a/b"'], "a/b"),
        ("1", 1.0, ["1", "1.0", "1e0", '"1"'], 1),
        ("1000", 1e3, ["1e3", "1000.0", "1000"], 1000),
        ("-5", -5, ["-5", "-5.0", '"-5"'], -5),
    ],
)
def test_one_id_is_the_same_in_the_path_the_token_the_payload_and_what_is_received(
    postgres_settings: dict[str, str],
    connection: psycopg.Connection,
    start_app: StartApp,
    connect: Connect,
    text: str,
    claim: object,
    written: list[str],
    received: object,
) -> None:
    app = start_app(postgres_settings | {"WS_JWT_SECRET": SECRET}).wait_until_ready()
    token = jwt.encode({"matches": [claim]}, SECRET)
    with connect(app, text, f"?token={token}") as client:
        assert client.wait_for_initial_load()["match_id"] == received
        for match in written:
            connection.execute("SELECT pg_notify('match_change', %s)", [f'{{"match_id": {match}, "data": {{}}}}'])
        client.wait_for_updates(len(written))


def test_a_slash_in_an_id_needs_no_encoding_and_an_empty_part_is_no_id(
    postgres_settings: dict[str, str], start_app: StartApp
) -> None:
    app = start_app(postgres_settings).wait_until_ready()
    with closing(http.client.HTTPConnection("127.0.0.1", app.port)) as decoded:
        decoded.request("GET", "/api/matches/a/b/events")  # as a proxy passes it on that rewrites paths
        response = decoded.getresponse()
        assert response.status == 200
        while not (line := response.readline()).startswith(b"data: "):
            pass
        assert json.loads(line[6:])["match_id"] == "a/b"
    for path in ("/api/matches/1//events", "/api/matches//1/events"):
        assert app.get(path)[0] == 404


@over_both
def test_a_token_that_expires_ends_the_connection(
    postgres_settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp, connect: Connect
) -> None:
    app = start_app(postgres_settings | {"WS_JWT_SECRET": SECRET}).wait_until_ready()
    token = jwt.encode({"exp": int(time.time()) + 8}, SECRET)
    with connect(app, 1, f"?token={token}") as client:
        client.wait_for_initial_load()
        notify(connection, 1)
        client.wait_for_updates(1)
        if isinstance(client, Client):
            assert client.wait_until_closed() == 3000
        else:
            client.wait_until_ended()
        assert time.time() >= jwt.decode(token, SECRET, ["HS256"], {"verify_exp": False})["exp"]


def test_with_tokens_a_client_id_belongs_to_the_tokens_subject(
    postgres_settings: dict[str, str], start_app: StartApp
) -> None:
    app = start_app(postgres_settings | {"WS_JWT_SECRET": SECRET}).wait_until_ready()

    def client_of(**claims: str) -> Client:
        return app.client(1, "phone", f"?token={jwt.encode(claims, SECRET)}")

    with client_of(sub="ann") as ann, client_of(sub="bob") as bob, client_of(jti="1") as nobody, client_of(jti="2"):
        with client_of(sub="ann", jti="renewed"):
            assert ann.wait_until_closed() == 3510
        for other in (bob, nobody):
            other.wait_for_initial_load()
            assert other.code is None


def test_with_tokens_readyz_tells_strangers_the_state_and_operators_the_reasons(
    redis_settings: dict[str, str], start_app: StartApp, tmp_path: Path
) -> None:
    settings = redis_settings | {"WS_JWT_SECRET": SECRET, "REDIS_URL": "redis://127.0.0.1:1"}
    app = start_app(settings)
    operator, other = (jwt.encode({"operator": value}, SECRET) for value in (True, False))
    wait_until(lambda: "127.0.0.1:1" in str(app.get(f"/readyz?token={operator}")[1]))
    for query in ("", f"?token={other}", "?token=wrong"):
        assert app.get(f"/readyz{query}") == (503, {"ready": False, "state": "degraded"})
    command = [sys.executable, "-m", "app.appliance", "ready"]
    with Process(command, tmp_path, settings | {"HOST": "127.0.0.1", "PORT": str(app.port)}) as ready:
        assert ready.exit_code() == 1
        assert "127.0.0.1:1" in ready.log, "this machine has the secret"


@over_both
def test_pages_of_other_sites_are_refused_and_the_servers_own_are_not(
    postgres_settings: dict[str, str], start_app: StartApp, connect: Connect
) -> None:
    app = start_app(postgres_settings).wait_until_ready()
    assert rejection(app, connect, headers={"Origin": "http://evil.example"})[0] == 403
    assert rejection(app, connect, headers={"Origin": "null"})[0] == 403
    with connect(app, headers={"Origin": f"http://127.0.0.1:{app.port}"}) as client:
        client.wait_for_initial_load()


@over_both
def test_a_full_worker_refuses_clients_until_one_leaves(
    postgres_settings: dict[str, str], start_app: StartApp, connect: Connect
) -> None:
    app = start_app(postgres_settings | {"MAX_CLIENTS": "2"}).wait_until_ready()
    with by_websocket(app), by_event_stream(app):
        assert rejection(app, connect) == (503, "this worker is full")
    wait_until(lambda: app.get("/readyz")[1]["clients"] == 0)
    with connect(app) as client:
        client.wait_for_initial_load()


def test_it_is_logged_once_that_anyone_may_listen(postgres_settings: dict[str, str], start_app: StartApp) -> None:
    app = start_app(postgres_settings, workers=3)
    wait_until(lambda: app.log.count("Booting worker") == 3)
    app.wait_until_ready()
    assert app.log.count("anyone may listen") == 1
    secured = start_app(postgres_settings | {"WS_JWT_SECRET": SECRET}).wait_until_ready()
    assert "anyone may listen" not in secured.log


# ---- closing


@over_both
def test_a_client_that_receives_only_pings_for_long_is_not_closed(
    postgres_settings: dict[str, str], start_app: StartApp, connect: Connect
) -> None:
    app = start_app(postgres_settings | {"PING_INTERVAL": "1"}).wait_until_ready()
    with connect(app) as client:
        wait_until(lambda: len(client.of_type("ping")) > 3)
        hold_for(0.5, lambda: get(app.port, "/readyz")[1]["clients"] == 1)
