"""Debian's Redis 7 as people run it: with a password and TLS, with a replica that lags, out of memory."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psycopg
import pytest
import redis

from tests.conftest import StartApp, StartListener
from tests.integration.test_modes import notify
from tests.support.process import Process
from tests.support.proxy import Proxy
from tests.support.redis_server import certificate
from tests.support.servers import database_settings, free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

StartRedis = Callable[..., int]


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    """A function that starts Debian's redis-server on a free port, with options, and returns the port."""
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("there is no redis-server: install the package redis-server")
        pytest.skip("there is no redis-server")
    with ExitStack() as stack:

        def start(*options: str, port_option: str = "--port") -> int:
            port = free_port()
            folder = tmp_path / f"redis-{port}"
            folder.mkdir()
            command = [program, port_option, str(port), "--bind", "127.0.0.1", "--save", "", *options]
            server = stack.enter_context(Process(command, folder, {}))
            server.wait_for_log("Ready to accept connections")
            return port

        yield start


@pytest.fixture
def base(database: str) -> dict[str, str]:
    return database_settings(database) | {"USE_REDIS_NOTIFIER": "true", "CANARY_INTERVAL": "0.5"}


def test_a_url_may_have_a_password_and_use_tls(
    base: dict[str, str],
    connection: psycopg.Connection,
    start_redis: StartRedis,
    start_listener: StartListener,
    start_app: StartApp,
    tmp_path: Path,
) -> None:
    certificate(tmp_path)
    tls = ["--port", "0", "--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem")]
    authority = ["--tls-ca-cert-file", str(tmp_path / "cert.pem"), "--tls-auth-clients", "no"]
    port = start_redis(*tls, *authority, "--requirepass", "s3cret", port_option="--tls-port")
    url = f"rediss://:s3cret@localhost:{port}?ssl_ca_certs={tmp_path / 'cert.pem'}"
    listener = start_listener(base | {"REDIS_URL": url}).wait_until_aligned()
    app = start_app(base | {"REDIS_URL": url}).wait_until_ready()
    with app.client(1) as client:
        client.wait_for_initial_load()
        notify(connection, "match_change", {"match_id": 1})
        client.wait_for_updates(1)
    assert "s3cret" not in listener.log + app.log


def test_what_a_promoted_replica_lacks_is_restored_by_the_listener_without_a_gap(
    base: dict[str, str],
    connection: psycopg.Connection,
    start_redis: StartRedis,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    master = start_redis()
    replica = start_redis("--replicaof", f"127.0.0.1 {master}")
    with (
        Proxy(master) as proxy,
        closing(redis.Redis(port=replica)) as lagging,
        closing(redis.Redis(port=master)) as ahead,
    ):
        settings = base | {"REDIS_URL": f"redis://127.0.0.1:{proxy.port}"}
        listener = start_listener(settings).wait_until_aligned()
        app = start_app(settings).wait_until_ready()
        with app.client(1) as client:
            client.wait_for_initial_load()
            for number in range(200):
                notify(connection, "match_change", {"match_id": 1, "data": number})
                if number == 120:
                    client.wait_for_updates(100)
                    wait_until(lambda: int(lagging.xlen("{pg_notify}:log")) > 100)
                    lagging.replicaof("NO", "ONE")  # it replicates no longer
            client.wait_for_updates(200)
            assert int(lagging.xlen("{pg_notify}:log")) < int(ahead.xlen("{pg_notify}:log"))
            proxy.redirect_to(replica)
            for number in range(200, 300):
                notify(connection, "match_change", {"match_id": 1, "data": number})
            client.wait_for_updates(300)
            assert [update["data"] for update in client.updates] == list(range(300))
            assert not client.of_type("resync")
        assert sum("begins after" in line for line in listener.lines) == 1


def test_a_full_redis_is_logged_once_and_delays_events(
    base: dict[str, str],
    connection: psycopg.Connection,
    start_redis: StartRedis,
    start_listener: StartListener,
    start_remote_app: StartApp,
) -> None:
    port = start_redis()
    settings = base | {"REDIS_URL": f"redis://127.0.0.1:{port}"}
    listener = start_listener(settings).wait_until_aligned()
    app = start_remote_app(settings).wait_until_ready()
    with closing(redis.Redis(port=port)) as client_of_redis, app.client(1) as client:
        client.wait_for_initial_load()
        notify(connection, "match_change", {"match_id": 1, "data": 0})
        client.wait_for_updates(1)
        client_of_redis.config_set("maxmemory", "1mb")
        with suppress(redis.exceptions.OutOfMemoryError):
            client_of_redis.set("filler", b"x" * 2_000_000)
        for number in range(1, 50):
            notify(connection, "match_change", {"match_id": 1, "data": number})
        listener.wait_for_log("Redis is away")
        wait_until(lambda: app.get("/readyz")[0] == 503)
        client_of_redis.config_set("maxmemory", "0")
        client.wait_for_updates(50)
        assert [update["data"] for update in client.updates] == list(range(50))
        assert not client.of_type("resync")
    assert sum("Redis is away" in line for line in listener.lines) <= 2, listener.log
