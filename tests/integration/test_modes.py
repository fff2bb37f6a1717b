"""Both modes from end to end: PostgreSQL, the listener, Redis, gunicorn's workers and their clients."""

import json
import signal
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, NamedTuple

import psycopg
import pytest

from app.core.config import DEFAULT_CHANNELS
from tests.conftest import RedisPlace, StartApp, StartListener, fresh_database, fresh_redis_place, redis_mode
from tests.support.programs import App, Client, Listener
from tests.support.waiting import wait_until

LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
TERMINATE = LISTENING.replace("count(*)", "count(pg_terminate_backend(pid))")
SNAPSHOTS = LISTENING.replace("query LIKE 'LISTEN%'", "application_name LIKE 'notifymux-snapshot/%'")
FLOOD = """
    SELECT pg_notify('match_change', json_build_object('match_id', 1, 'data', repeat('x', 7000), 'n', n)::text)
    FROM generate_series(1, 200) n
"""
NAMELESS = ["", "no JSON", "[1, 2]", '{"match_id": 2}']  # payloads that no client of match 1 receives
MODES = ["redis", "postgres"]


@pytest.fixture
def mode(request: pytest.FixtureRequest, settings: dict[str, str], start_listener: StartListener) -> dict[str, str]:
    """The settings of one mode; in Redis mode with a listener."""
    if request.param == "redis":
        start_listener(settings).wait_until_aligned()
    return settings | {"USE_REDIS_NOTIFIER": "true" if request.param == "redis" else "false"}


in_both_modes = pytest.mark.parametrize("mode", MODES, indirect=True)


class Deployment(NamedTuple):
    """A database and four workers, in one mode; in Redis mode with a listener."""

    mode: str
    database: str
    connection: psycopg.Connection
    app: App


@pytest.fixture(scope="module", params=MODES)
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment that several tests share. Each test has a match of its own."""
    folder, mode = tmp_path_factory.mktemp("deployment"), str(request.param)
    with ExitStack() as stack:
        database = stack.enter_context(fresh_database(request))
        settings = redis_mode(database, stack.enter_context(fresh_redis_place(request)))
        settings["NOTIFY_CHANNELS"] = ",".join([*DEFAULT_CHANNELS, "weather"])
        settings["USE_REDIS_NOTIFIER"] = "true" if mode == "redis" else "false"
        if mode == "redis":
            stack.enter_context(Listener(folder, settings)).wait_until_aligned()
        app = stack.enter_context(App(folder, settings, workers=4))
        # All have been started, and hear events, before the first one is sent: some are ready earlier than others.
        for client in app.wait_until_ready().client_of_each_worker("started", 4).values():
            client.wait_for_initial_load()
            client.close()
        wait_until(lambda: [app.get("/readyz")[0] for _ in range(12)] == [200] * 12)
        yield Deployment(mode, database, stack.enter_context(closing(psycopg.connect(database, autocommit=True))), app)


def notify(connection: psycopg.Connection, channel: str, payload: object) -> None:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    connection.execute("SELECT pg_notify(%s, %s)", [channel, text])


def test_10_000_notifications_reach_a_client_of_each_of_4_workers_once_and_in_order(deployment: Deployment) -> None:
    connection, clients = deployment.connection, deployment.app.client_of_each_worker(1, 4)
    with connection.cursor() as cursor, connection.transaction():
        for number in range(10_000):
            channel = DEFAULT_CHANNELS[number % 7]
            payload: Any = {"match_id": 1, "operation": "UPDATE", "data": {"n": number, "filler": "ü" * (number % 50)}}
            cursor.execute("SELECT pg_notify(%s, %s)", [channel, json.dumps(payload, indent=1 if number % 3 else None)])
            if number % 10 == 0:
                cursor.execute(
                    "SELECT pg_notify(%s, %s)",
                    [channel, NAMELESS[number // 10 % 4]],
                )
            if number % 500 == 499:
                connection.execute("COMMIT")
                connection.execute("BEGIN")
    for client in clients.values():
        updates = client.wait_for_updates(10_000, within=60)
        assert [update["data"]["n"] for update in updates] == list(range(10_000))
        assert [update["channel"] for update in updates] == [DEFAULT_CHANNELS[n % 7] for n in range(10_000)]
        if deployment.mode == "redis":
            ids = [tuple(map(int, update["id"].split("-"))) for update in updates]
            assert ids == sorted(set(ids))
            assert len({epoch for epoch, _ in ids}) == 1
        else:
            assert {update["id"] for update in updates} == {None}
        client.close()
    assert len(clients) == 4


def test_every_channel_has_its_message_type(deployment: Deployment) -> None:
    expected = {
        "matchdata_change": "match-update",
        "match_change": "match-update",
        "scoreboard_change": "match-update",
        "gameclock_change": "gameclock-update",
        "playclock_change": "playclock-update",
        "football_event_change": "event-update",
        "player_match_change": "players-update",
        "weather": "weather",
    }
    with deployment.app.client("final 1") as client:
        loaded = client.wait_for_initial_load()
        assert isinstance(loaded.pop("id"), str if deployment.mode == "redis" else type(None))
        assert loaded == {"type": "initial-load", "recovered": False, "match_id": "final 1", "data": None}
        for channel in expected:
            notify(deployment.connection, channel, {"match_id": "final 1", "operation": "INSERT", "data": {"id": 5}})
        updates = client.wait_for_updates(len(expected))
    assert [update["type"] for update in updates] == list(expected.values())
    for update, channel in zip(updates, expected, strict=True):
        extra = {"gameclock_change": ["gameclock"], "playclock_change": ["playclock"]}.get(channel, [])
        assert set(update) == {"type", "id", "channel", "match_id", "operation", "data", *extra}
        assert update["operation"] == "INSERT"
        assert all(update[name] == {"id": 5} for name in ["data", *extra])


def test_the_routing_key_is_configurable_and_a_payload_without_data_is_its_own_row(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false", "ROUTING_KEY": "game"}).wait_until_ready()
    with app.client(3) as client:
        client.wait_for_initial_load()
        notify(connection, "match_change", {"match_id": 3})
        notify(connection, "match_change", {"game": 4})
        notify(connection, "match_change", {"game": 3, "score": 7})
        [update] = client.wait_for_updates(1)
    assert update["data"] == {"game": 3, "score": 7}
    assert update["match_id"] == 3


@in_both_modes
def test_a_client_starts_with_a_snapshot_and_gets_a_new_one_after_a_gap(
    mode: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    connection.execute("CREATE TABLE score (match_id int, points int)")
    connection.execute("INSERT INTO score VALUES (1, 7)")
    query = "SELECT to_json(s) FROM score s WHERE match_id = %(match_id)s"
    app = start_app(mode | {"SNAPSHOT_QUERY": query}).wait_until_ready()
    with app.client(1) as client:
        assert client.wait_for_initial_load()["data"] == {"match_id": 1, "points": 7}
        connection.execute("UPDATE score SET points = 14")
        connection.execute(TERMINATE)
        [message] = wait_until(lambda: client.of_type("resync"))
        assert message["data"] == {"match_id": 1, "points": 14}
        notify(connection, "match_change", {"match_id": 1, "data": "after"})
        assert client.wait_for_updates(1)[0]["data"] == "after"


@pytest.mark.long
def test_without_clients_the_snapshot_pool_holds_no_connection(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    query = {"SNAPSHOT_QUERY": "SELECT %(match_id)s", "SNAPSHOT_POOL": "3"}
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"} | query).wait_until_ready()
    for number in range(20):
        with app.client(number, f"client-{number}") as client:
            assert client.wait_for_initial_load()["data"] == number
            row = connection.execute(SNAPSHOTS).fetchone()
            assert row
            assert row[0] <= 3
    wait_until(lambda: connection.execute(SNAPSHOTS).fetchone() == (0,), 30)


def test_a_failing_snapshot_is_reported_to_the_client_and_updates_follow(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    query = "SELECT to_json(1) FROM no_such_table WHERE match_id = %(match_id)s"
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false", "SNAPSHOT_QUERY": query}).wait_until_ready()
    with app.client(1) as client:
        loaded = client.wait_for_initial_load()
        assert loaded["data"] is None
        assert "no_such_table" not in loaded["error"]
        notify(connection, "match_change", {"match_id": 1})
        client.wait_for_updates(1)
    assert "no_such_table" in app.log


def test_a_client_id_belongs_to_its_newest_connection_which_the_end_of_the_older_one_does_not_affect(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    with app.client(1, "same") as older:
        older.wait_for_initial_load()
        with app.client(1, "same") as newer:
            assert older.wait_until_closed() == 3510
            notify(connection, "match_change", {"match_id": 1})
            newer.wait_for_updates(1)
            assert app.get("/readyz")[1]["clients"] == 1
        wait_until(lambda: app.get("/readyz")[1]["clients"] == 0)


def test_a_client_that_does_not_answer_pings_is_closed_and_one_that_does_stays(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false", "PING_INTERVAL": "1"}).wait_until_ready()
    with app.client(1, "answers") as answers, Client(app.port, 1, "silent", pongs=False) as silent:
        assert silent.wait_until_closed() == 3012
        wait_until(lambda: len(answers.of_type("ping")) > 3)
        notify(connection, "match_change", {"match_id": 1})
        answers.wait_for_updates(1)


@pytest.mark.long
def test_a_client_that_does_not_read_is_closed_with_3008_and_affects_no_other(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false", "CLIENT_QUEUE_BYTES": "100000"}).wait_until_ready()
    with app.client(1, "reads") as reads, Unread(app.port, 1):
        reads.wait_for_initial_load()
        while "is too slow and is closed" not in app.log:
            seen = len(reads.updates)
            connection.execute(FLOOD)
            reads.wait_for_updates(seen + 200)
        wait_until(lambda: app.get("/readyz")[1]["clients"] == 1)


class Unread(Client):
    """A client that never reads."""

    def _read(self) -> None:
        self.socket.close_timeout = 0.1


def test_what_a_client_sends_is_ignored_and_too_large_a_message_closes_only_this_client(deployment: Deployment) -> None:
    with deployment.app.client("loud", "calm") as calm, deployment.app.client("loud", "loud") as loud:
        for noise in ("", "{", '{"type":"subscribe"}', b"\x00\xff", "x" * 4000):
            loud.socket.send(noise)
        notify(deployment.connection, "match_change", {"match_id": "loud"})
        loud.wait_for_updates(1)
        loud.socket.send("x" * 5000)
        assert loud.wait_until_closed() == 1009
        notify(deployment.connection, "match_change", {"match_id": "loud"})
        calm.wait_for_updates(2)


@pytest.mark.parametrize("ending", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_restarted_listener_is_an_announced_gap_and_events_follow(
    settings: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
    ending: signal.Signals,
) -> None:
    listener = start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    with app.client(1) as client:
        client.wait_for_initial_load()
        listener.signal(ending)
        listener.exit_code()
        notify(connection, "match_change", {"match_id": 1, "data": "lost"})
        start_listener(settings).wait_until_aligned()
        wait_until(lambda: client.of_type("resync"))
        notify(connection, "match_change", {"match_id": 1, "data": "heard"})
        assert [update["data"] for update in client.wait_for_updates(1)] == ["heard"]
    app.wait_until_ready()


def test_there_is_one_listening_session_per_listener_or_per_worker(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    listener = start_listener(settings).wait_until_aligned()

    def rows() -> int:
        row = connection.execute(LISTENING).fetchone()
        return int(row[0]) if row else 0

    app: App = start_app(settings, workers=4).wait_until_ready()
    assert rows() == 1
    app.stop()
    start_app(settings | {"USE_REDIS_NOTIFIER": "false"}, workers=4).wait_until_ready()
    wait_until(lambda: rows() == 5)
    listener.stop()
    wait_until(lambda: rows() == 4)


def test_with_several_writers_and_rollbacks_clients_receive_the_order_of_the_commits(
    deployment: Deployment,
) -> None:
    clients = deployment.app.client_of_each_worker("written", 4)
    with closing(psycopg.connect(deployment.database, autocommit=True)) as witness:
        for channel in DEFAULT_CHANNELS:
            witness.execute(f"LISTEN {channel}")
        with ThreadPoolExecutor(6) as pool:
            committed = sum(pool.map(partial(write, deployment.database), range(6)))
        # PostgreSQL delivers notifications in the same order to every session that LISTENs.
        order = [json.loads(note.payload)["data"] for note in witness.notifies(timeout=20, stop_after=committed)]
    assert len(order) == committed
    for client in clients.values():
        assert [update["data"] for update in client.wait_for_updates(committed)] == order
        client.close()


def write(database: str, writer: int) -> int:
    """Notify in transactions, some of which are rolled back; return the number of notifications committed."""
    notified = 0
    with closing(psycopg.connect(database)) as connection:
        for number in range(60):
            for part in range(3):
                notify(connection, DEFAULT_CHANNELS[part], {"match_id": "written", "data": [writer, number, part]})
            if number % 4:
                connection.commit()
                notified += 3
            else:
                connection.rollback()
    return notified


def test_in_redis_mode_clients_receive_what_the_stream_holds_under_consecutive_ids(
    settings: dict[str, str],
    connection: psycopg.Connection,
    redis_place: RedisPlace,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    start_listener(settings | {"NOTIFY_CHANNELS": "match_change,weather"}).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    with app.client(1) as client, closing(redis_place.client()) as redis:
        position = client.wait_for_initial_load()["id"]
        for number in range(300):
            notify(connection, ["match_change", "weather"][number % 2], {"match_id": 1, "data": number})
        updates = client.wait_for_updates(300)
        log = f"{{{redis_place.namespace}}}:log"

        def appended() -> Any:
            return redis.xrange(log)

        # The client may have been fed what is not appended yet.
        wait_until(lambda: sum(b"pg_notify_mux" not in fields[b"event"] for _, fields in appended()) >= 300)
        entries = appended()
    ids = [tuple(map(int, key.decode().split("-"))) for key, _ in entries]
    assert ids == [(ids[0][0], sequence) for sequence in range(1, len(ids) + 1)]
    events = [json.loads(fields[b"event"]) for _, fields in entries]
    held = [(e["id"], e["channel"], e["payload"]["data"]) for e in events if e["channel"] != "pg_notify_mux"]
    assert [(update["id"], update["channel"], update["data"]) for update in updates] == held
    assert {update["type"] for update in updates} == {"match-update", "weather"}
    assert position in {key.decode() for key, _ in entries}


def test_a_client_that_waits_for_a_slow_snapshot_is_not_closed(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    slow = {"SNAPSHOT_QUERY": "SELECT %(match_id)s || pg_sleep(1.5)::text", "PING_INTERVAL": "0.2"}
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"} | slow).wait_until_ready()
    with app.client("x") as client:
        assert client.wait_for_initial_load()["data"] == "x"
        wait_until(lambda: client.of_type("ping"))
        notify(connection, "match_change", {"match_id": "x"})
        client.wait_for_updates(1)


def test_a_client_whose_connection_breaks_is_removed(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    with app.client(1, "stays") as stays:
        for number in range(5):
            gone = app.client(1, f"gone-{number}")
            gone.wait_for_initial_load()
            gone.socket.socket.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: app.get("/readyz")[1]["clients"] == 1)
        notify(connection, "match_change", {"match_id": 1})
        stays.wait_for_updates(1)


def test_a_role_that_may_not_notify_waits_until_it_may(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    role = f"notifymux_test_{uuid.uuid4().hex[:12]}"
    connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'given'")
    connection.execute("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC")
    try:
        limited = settings | {"DB_USER": role, "DB_PASSWORD": "given", "USE_REDIS_NOTIFIER": "false"}
        listener = start_listener(limited)
        listener.wait_for_log("PostgreSQL forbids it: ")
        app = start_app(limited)
        wait_until(lambda: "permission denied for function pg_notify" in str(app.get("/readyz")))
        assert app.get("/readyz")[0] == 503
        worker = f"{LISTENING} AND application_name LIKE 'notifymux-worker/%'"
        # A session that was refused may still be ending.
        wait_until(lambda: connection.execute(worker.encode()).fetchone() == (0,))
        assert listener.running
        assert listener.log.count("PostgreSQL forbids it: ") == 1
        connection.execute(f"GRANT EXECUTE ON FUNCTION pg_notify(text, text) TO {role}")
        listener.wait_until_aligned(within=15)
        app.wait_until_ready(within=15)
        with app.client(1) as client:
            notify(connection, "match_change", {"match_id": 1})
            client.wait_for_updates(1)
        listener.stop()
        app.stop()
    finally:
        connection.execute("GRANT EXECUTE ON FUNCTION pg_notify(text, text) TO PUBLIC")
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
