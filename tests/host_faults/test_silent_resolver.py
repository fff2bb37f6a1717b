"""A resolver that answers nobody: what is looked up holds up nothing that does not need the answer."""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.conftest import RedisPlace
from tests.host_faults.conftest import StartWrappedApp, StartWrappedListener
from tests.support.canaries import Canaries
from tests.support.numbered import MATCH, Numbered
from tests.support.proxy import Proxy
from tests.support.silent_resolver import NAME, SilentResolver
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


@pytest.fixture
def proxy(redis_place: RedisPlace) -> Iterator[Proxy]:
    """The way to Redis."""
    with Proxy(int(urlsplit(redis_place.url).port or 6379)) as proxy:
        yield proxy


@pytest.fixture
def settings(settings: dict[str, str], proxy: Proxy) -> dict[str, str]:
    """With Redis under a name."""
    parts = urlsplit(settings["REDIS_URL"])
    userinfo = parts.netloc.rpartition("@")[0]
    return settings | {"REDIS_URL": parts._replace(netloc=f"{userinfo}@{NAME}:{proxy.port}").geturl()}


def sessions(connection: psycopg.Connection, name: str) -> list[tuple[int]]:
    """Those whose application_name begins so."""
    query = "SELECT pid FROM pg_stat_activity WHERE starts_with(application_name, %s)"
    return connection.execute(query, [name]).fetchall()


def test_a_listener_reads_postgresql_and_shows_that_it_lives_while_redis_can_not_be_looked_up(
    settings: dict[str, str],
    database: str,
    resolver: SilentResolver,
    proxy: Proxy,
    events: Numbered,
    start_wrapped_listener: StartWrappedListener,
    start_wrapped_app: StartWrappedApp,
    tmp_path: Path,
) -> None:
    (tmp_path / ".run" / "pulse").mkdir(parents=True)
    pulse = tmp_path / ".run" / "pulse" / "listener"
    listener = start_wrapped_listener(resolver.wrapper, settings | {"SUPERVISOR_ENABLED": "1"}).wait_until_aligned()
    app = start_wrapped_app(resolver.wrapper, settings).wait_until_ready()
    with Canaries(database) as canaries, app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        resolver.fall_silent()
        proxy.drop()
        wait_until(lambda: resolver.asked, 10, "it looks Redis up")
        before = pulse.stat().st_mtime
        for _ in range(12):
            events.commit(5)
            canaries.pass_by(1, within=5, what="a canary: the listener goes on")
        assert pulse.stat().st_mtime - before > 3, "the sign of life that the watchdog looks at"
        events.heard_by(client)  # by the feed
        assert (app.get("/readyz")[0], app.get("/readyz")[1]["state"]) == (200, "degraded")
        resolver.answer()
        events.commit(5)
        events.heard_by(client)
    # Under supervisord each line is on both outputs.
    assert len({line for line in listener.lines if " begins after " in line}) == 1, listener.log


def test_a_worker_serves_while_redis_can_not_be_looked_up_and_is_ready_soon_after(
    settings: dict[str, str],
    database: str,
    connection: psycopg.Connection,
    resolver: SilentResolver,
    proxy: Proxy,
    events: Numbered,
    start_wrapped_listener: StartWrappedListener,
    start_remote_wrapped_app: StartWrappedApp,
) -> None:
    """In a pod without a listener."""
    direct = settings | {"REDIS_URL": settings["REDIS_URL"].replace(NAME, "127.0.0.1")}
    start_wrapped_listener([], direct).wait_until_aligned()
    # PostgreSQL's name is in /etc/hosts; snapshots are taken over connections that are made when they are needed.
    query = "SELECT json_build_object('match', %(match_id)s::text)"
    app = start_remote_wrapped_app(
        resolver.wrapper, settings | {"DB_HOST": "localhost", "SNAPSHOT_QUERY": query}
    ).wait_until_ready()
    with Canaries(database) as canaries, app.client(MATCH) as client:
        client.wait_for_initial_load()
        resolver.fall_silent()
        proxy.drop()
        wait_until(lambda: resolver.asked, 10, "it looks Redis up")
        wait_until(lambda: app.get("/readyz")[0] == 503)
        while sessions(connection, "notifymux-snapshot/"):  # until the one of the client above is closed
            events.commit(5)
            canaries.pass_by(2)  # by then it has tried again, which is one more look-up under way
            for path in ("/healthz", "/", "/static/notifymux.js"):
                assert app.get(path)[0] == 200
        with app.client("another", "other") as other:
            assert other.wait_for_initial_load()["data"] == {"match": "another"}, app.log
        resolver.answer()
        events.heard_by(client, within=10)
        assert "Traceback" not in app.log
        assert "never retrieved" not in app.log
    app.wait_until_ready(10)


def test_a_listener_shows_that_it_lives_while_postgresql_can_not_be_looked_up(
    settings: dict[str, str],
    connection: psycopg.Connection,
    redis_place: RedisPlace,
    resolver: SilentResolver,
    start_wrapped_listener: StartWrappedListener,
) -> None:
    settings = settings | redis_place.settings | {"DB_HOST": NAME, "POD_NAME": "named"}
    listener = start_wrapped_listener(resolver.wrapper, settings).wait_until_aligned()
    resolver.fall_silent()
    [pid] = sessions(connection, "notifymux-listener/named")
    connection.execute("SELECT pg_terminate_backend(%s)", pid)
    wait_until(lambda: resolver.asked, 10, "it looks PostgreSQL up")
    with closing(redis_place.client()) as client:
        beats: set[object] = set()

        def goes_on() -> bool:
            [key] = client.scan_iter(match=f"{{{redis_place.namespace}}}:listener:named:*")
            beats.add(client.hget(key, "beat_at"))
            return len(beats) > 6

        wait_until(goes_on, 15, lambda: f"{len(beats)} heartbeats")
    resolver.answer()
    listener.wait_until_aligned(times=2, within=15)


@pytest.mark.parametrize("server", ["REDIS_URL", "DB_HOST"])
def test_a_listener_ends_by_sigterm_while_a_server_can_not_be_looked_up(
    settings: dict[str, str],
    redis_place: RedisPlace,
    resolver: SilentResolver,
    start_wrapped_listener: StartWrappedListener,
    server: str,
) -> None:
    resolver.fall_silent()
    wanted = settings if server == "REDIS_URL" else settings | redis_place.settings | {"DB_HOST": NAME}
    listener = start_wrapped_listener(resolver.wrapper, wanted)
    wait_until(lambda: resolver.asked, 10, "it looks a server up")
    listener.signal(signal.SIGTERM)
    assert listener.exit_code(within=6) == 0  # supervisord waits as long


def test_workers_end_by_sigterm_while_redis_can_not_be_looked_up(
    settings: dict[str, str], resolver: SilentResolver, start_wrapped_app: StartWrappedApp
) -> None:
    resolver.fall_silent()
    app = start_wrapped_app(resolver.wrapper, settings)
    wait_until(lambda: resolver.asked > 3, 15, "it looks Redis up again and again")
    assert app.get("/healthz")[0] == 200
    app.signal(signal.SIGTERM)
    assert app.exit_code(within=6) == 0
    assert "Traceback" not in app.log
