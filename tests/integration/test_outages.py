"""Servers that stop, freeze, restart, or are not there at the start: no program has to be restarted."""

import json
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from tests.conftest import StartApp, StartListener
from tests.support.programs import App, Client, Listener
from tests.support.proxy import Proxy
from tests.support.servers import Servers, database_settings, redis_url_with_port
from tests.support.waiting import hold_for, wait_until

LISTENING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND application_name LIKE 'notifymux-%'"
MATCH = 7

# Seconds for which a server is away: a restart, and an upgrade.
OUTAGES = [1, pytest.param(20, marks=pytest.mark.long)]


@pytest.fixture
def own_settings(servers: Servers) -> dict[str, str]:
    """Settings for the test's own servers, in Redis mode."""
    redis = {"REDIS_URL": servers.embedded.redis_url, "USE_REDIS_NOTIFIER": "true", "CANARY_INTERVAL": "0.5"}
    return database_settings(servers.embedded.database_url) | redis


@pytest.fixture
def database(servers: Servers) -> Iterator["Database"]:
    with closing(Database(servers)) as database:
        yield database


class Database:
    """Notifies numbered events of one match and counts them."""

    def __init__(self, servers: Servers) -> None:
        self._url = servers.embedded.database_url
        self.sent = 0
        self.connect()

    def connect(self) -> None:
        self._connection = psycopg.connect(self._url, autocommit=True)

    def notify(self, count: int = 1) -> None:
        for _ in range(count):
            self.sent += 1
            payload = json.dumps({"match_id": MATCH, "data": self.sent})
            self._connection.execute("SELECT pg_notify('match_change', %s)", [payload])

    def listening(self) -> list[int]:
        return [pid for (pid,) in self._connection.execute(LISTENING).fetchall()]

    def close(self) -> None:
        self._connection.close()


def numbers(client: Client) -> list[int]:
    return [update["data"] for update in client.updates]


def notify_for(database: Database, seconds: float) -> None:
    """Notify repeatedly, for as long as an outage lasts."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        database.notify(5)
        hold_for(0.05, lambda: True)


def test_nothing_is_lost_while_redis_restarts_with_its_data(
    servers: Servers,
    database: Database,
    own_settings: dict[str, str],
    start_listener: StartListener,
    start_remote_app: StartApp,
) -> None:
    _redis_is_away(servers, database, start_listener(own_settings), start_remote_app(own_settings), 1)


@pytest.mark.long
def test_nothing_is_lost_while_redis_is_away_for_20_seconds(
    servers: Servers,
    database: Database,
    own_settings: dict[str, str],
    start_listener: StartListener,
    start_remote_app: StartApp,
) -> None:
    _redis_is_away(servers, database, start_listener(own_settings), start_remote_app(own_settings), 20)


def _redis_is_away(servers: Servers, database: Database, listener: Listener, app: App, seconds: float) -> None:
    """The application is in a pod without a listener, so no feed stands in for Redis."""
    listener.wait_until_aligned()
    with app.wait_until_ready().client(MATCH) as client:
        client.wait_for_initial_load()
        database.notify(20)
        client.wait_for_updates(20)
        servers.stop_redis()
        wait_until(lambda: app.get("/readyz")[0] == 503)
        notify_for(database, seconds)
        servers.start_redis()
        database.notify(20)
        client.wait_for_updates(database.sent)
        assert numbers(client) == list(range(1, database.sent + 1))
        assert not client.of_type("resync")
    app.wait_until_ready()
    assert listener.running
    listener.wait_for_log("Redis is back")
    assert sum("Redis is away" in line for line in listener.lines) <= 3, listener.log


@pytest.mark.long
def test_nothing_is_lost_while_redis_is_frozen(
    servers: Servers,
    database: Database,
    own_settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    start_listener(own_settings).wait_until_aligned()
    app = start_app(own_settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        assert servers.redis
        servers.redis.freeze()
        notify_for(database, 4)
        servers.redis.thaw()
        database.notify(20)
        client.wait_for_updates(database.sent)
        assert numbers(client) == list(range(1, database.sent + 1))
        assert not client.of_type("resync")


@pytest.mark.parametrize("seconds", OUTAGES)
def test_after_an_outage_of_postgresql_events_are_delivered_again_and_the_gap_is_announced(
    servers: Servers,
    database: Database,
    own_settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
    seconds: float,
) -> None:
    listener = start_listener(own_settings).wait_until_aligned()
    app = start_app(own_settings).wait_until_ready()
    with app.client(MATCH) as client:
        database.notify(10)
        client.wait_for_updates(10)
        database.close()
        servers.stop_postgres()
        wait_until(lambda: app.get("/readyz")[0] == 503)
        hold_for(seconds, lambda: listener.running and app.running)
        servers.start_postgres()
        database.connect()
        wait_until(lambda: client.of_type("resync"), 30)
        seen = len(client.updates)
        database.notify(10)
        assert numbers_of(client.wait_for_updates(seen + 10)[-10:]) == list(range(11, 21))
    app.wait_until_ready()
    assert len(database.listening()) == 1
    assert sum("PostgreSQL is away" in line for line in listener.lines) <= 4, listener.log


def numbers_of(updates: list[dict[str, int]]) -> list[int]:
    return [update["data"] for update in updates]


@pytest.mark.parametrize(
    "absent", ["redis", *(pytest.param(absent, marks=pytest.mark.long) for absent in ("postgres", "both"))]
)
def test_programs_wait_for_a_server_that_is_not_there_at_the_start(
    servers: Servers, own_settings: dict[str, str], start_listener: StartListener, start_app: StartApp, absent: str
) -> None:
    if absent in {"postgres", "both"}:
        servers.stop_postgres()
    if absent in {"redis", "both"}:
        servers.stop_redis()
    listener, app = start_listener(own_settings), start_app(own_settings)
    wait_until(lambda: app.get("/readyz")[0] == 503)
    listener.wait_for_log("is away")
    assert app.get("/healthz")[0] == 200
    if absent in {"postgres", "both"}:
        servers.start_postgres()
    if absent in {"redis", "both"}:
        servers.start_redis()
    listener.wait_until_aligned(within=30)
    app.wait_until_ready(30)
    with app.client(MATCH) as client, closing(Database(servers)) as database:
        client.wait_for_initial_load()
        database.notify(10)
        client.wait_for_updates(10)
        assert numbers(client) == list(range(1, 11))


@pytest.mark.parametrize("canary_interval", ["0.5", pytest.param("2", marks=pytest.mark.long)])
def test_a_stalled_session_is_replaced_within_10_seconds_without_any_event(
    servers: Servers,
    database: Database,
    own_settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
    canary_interval: str,
) -> None:
    with Proxy(servers.embedded.postgres_port) as proxy:
        settings = own_settings | {"DB_PORT": str(proxy.port), "CANARY_INTERVAL": canary_interval}
        listener = start_listener(settings).wait_until_aligned()
        app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
        with app.client(MATCH) as client:
            client.wait_for_initial_load()
            before = set(database.listening())
            assert len(before) == 2
            # Existing connections stay stalled for ever; new ones work.
            proxy.stall_established()
            wait_until(lambda: len(set(database.listening()) - before) == 2, 10)
            listener.wait_until_aligned(times=2)
            wait_until(lambda: client.of_type("resync"))
            database.notify(5)
            client.wait_for_updates(5)
            assert len(database.listening()) == 2  # the new sessions have ended those that they replace
        for program in (listener, app):
            assert "the answer to the session's query is lost" in program.log


@pytest.mark.long
def test_a_cut_or_stalled_connection_to_redis_delays_events_and_loses_none(
    servers: Servers,
    database: Database,
    own_settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    with Proxy(servers.embedded.valkey_port) as proxy:
        settings = own_settings | {"REDIS_URL": redis_url_with_port(servers.embedded.redis_url, proxy.port)}
        start_listener(settings).wait_until_aligned()
        app = start_app(settings).wait_until_ready()
        with app.client(MATCH) as client:
            client.wait_for_initial_load()
            for fault in (proxy.cut, proxy.stall):
                fault()
                notify_for(database, 1)
                proxy.resume()
                client.wait_for_updates(database.sent, within=30)
            proxy.drop()
            database.notify(10)
            client.wait_for_updates(database.sent)
            assert numbers(client) == list(range(1, database.sent + 1))
            assert not client.of_type("resync")


@pytest.mark.long
def test_readyz_names_what_is_missing_and_healthz_only_that_the_process_runs(
    servers: Servers,
    own_settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
    start_remote_app: StartApp,
) -> None:
    own_settings["CANARY_INTERVAL"] = "0.2"
    listener, redis_app = start_listener(own_settings).wait_until_aligned(), start_remote_app(own_settings)
    postgres_app = start_app(own_settings | {"USE_REDIS_NOTIFIER": "false"})
    for app, mode in ((redis_app, "redis"), (postgres_app, "postgres")):
        app.wait_until_ready()
        expected = {"ready": True, "state": "ready", "mode": mode, "reasons": [], "clients": 0}
        assert app.get("/readyz")[1] == expected

    def is_unready(app: App, *reasons: str) -> bool:
        status, body = app.get("/readyz")
        assert app.get("/healthz") == (200, {"alive": True})
        given = body["reasons"]
        return status == 503 and len(given) == len(reasons) and all(map(str.startswith, given, reasons))

    no_canary = "no canary has come through PostgreSQL, the listener and Redis for "
    listener.freeze()
    wait_until(lambda: is_unready(redis_app, no_canary, "no listener is alive", "listener "))
    listener.thaw()
    redis_app.wait_until_ready()

    servers.stop_redis()
    wait_until(lambda: is_unready(redis_app, "this worker is not connected to Redis: ", no_canary))
    wait_until(lambda: postgres_app.get("/readyz")[0] == 200, 5)
    servers.start_redis()
    redis_app.wait_until_ready()

    servers.stop_postgres()
    wait_until(lambda: is_unready(redis_app, no_canary, "listener "))
    assert " is not connected to PostgreSQL: " in redis_app.get("/readyz")[1]["reasons"][1]
    no_canary = "no canary has come through PostgreSQL for "
    wait_until(lambda: is_unready(postgres_app, "this worker is not connected to PostgreSQL: ", no_canary))
    servers.start_postgres()
    for app in (redis_app, postgres_app):
        app.wait_until_ready(30)
        assert servers.embedded.password not in app.log
        for server in ("PostgreSQL", "Redis"):
            assert app.log.count(f"{server} is away: ") <= 4
            assert app.log.count(f"{server} is back after ") <= 1
    assert servers.embedded.password not in listener.log
