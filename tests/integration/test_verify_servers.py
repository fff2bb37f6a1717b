"""`verify` on servers that don't work for it: poolers, replicas, full ones."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from app.appliance.embedded.postgres import program
from app.appliance.embedded.privileges import chown, drop_privileges
from listener.verify import postgres_checks as postgres
from listener.verify import redis_checks
from listener.verify.result import CheckStatus
from tests.conftest import StartListener, Verify
from tests.support.process import Process
from tests.support.servers import Servers, database_settings, free_port

pytestmark = pytest.mark.long


@pytest.fixture
def settings(servers: Servers) -> dict[str, str]:
    """PostgreSQL mode, with servers of the test's own."""
    return database_settings(servers.embedded.database_url) | {"REDIS_URL": servers.embedded.redis_url}


def owned(folder: Path) -> Path:
    """A new folder that belongs to the servers' account."""
    folder.mkdir(mode=0o700)
    chown(folder)
    return folder


# Through a pooler.


def pgbouncer() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("there is no pgbouncer: install the package pgbouncer")
        pytest.skip("there is no pgbouncer")
    return found


@pytest.fixture(params=["", "extra_float_digits,options"], ids=["refusing options", "ignoring options"])
def pooled(request: pytest.FixtureRequest, settings: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """Settings that lead to PgBouncer in transaction mode instead of to PostgreSQL."""
    server = f"host={settings['DB_HOST']} port={settings['DB_PORT']} user=postgres password={settings['DB_PASSWORD']}"
    port, folder = free_port(), owned(tmp_path / "pgbouncer")
    configuration = [
        *("[databases]", f"* = {server}", "[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {port}"),
        *(
            "auth_type = any",
            "pool_mode = transaction",
            "unix_socket_dir =",
            f"ignore_startup_parameters = {request.param}",
        ),
    ]
    (folder / "pgbouncer.ini").write_text("\n".join(configuration), encoding="utf-8")
    with Process(drop_privileges([pgbouncer(), str(folder / "pgbouncer.ini")], folder), tmp_path, {}) as process:
        process.wait_for_log("process up")
        yield settings | {"DB_PORT": str(port)}


def test_a_transaction_pooler_is_a_failed_check(
    settings: dict[str, str], pooled: dict[str, str], start_listener: StartListener, verify: Verify
) -> None:
    start_listener(settings).wait_until_aligned()
    verified = verify(pooled)
    assert (verified.code, verified.with_status("failed")) == (1, ["PostgreSQL", "canary"])
    assert "DB_HOST leads to a connection pooler" in verified.text("PostgreSQL")
    assert "past the pooler" in verified.remedy("PostgreSQL")
    assert settings["DB_PASSWORD"] not in verified.log


# A replica.


@pytest.fixture
def replica(servers: Servers, tmp_path: Path) -> Iterator[int]:
    """The port of a read-only standby of the test's own PostgreSQL."""
    folder = owned(tmp_path / "replica")
    source = make_conninfo(servers.embedded.database_url, dbname=None)
    copy = [str(program("pg_basebackup")), "-D", str(folder), "-d", source, "-R", "-X", "stream", "-c", "fast"]
    subprocess.run(drop_privileges(copy, folder), check=True, capture_output=True, cwd="/")
    port = free_port()
    options = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories="]
    command = [str(program("postgres")), "-D", str(folder), *(word for option in options for word in ("-c", option))]
    with Process(drop_privileges(command, folder), tmp_path, {}) as process:
        process.wait_for_log("ready to accept read-only connections")
        yield port


def test_a_read_only_replica_is_a_failed_check(
    settings: dict[str, str], replica: int, start_listener: StartListener, verify: Verify
) -> None:
    start_listener(settings).wait_until_aligned()
    verified = verify(settings | {"DB_PORT": str(replica)})
    assert (verified.code, verified.with_status("failed")) == (1, ["PostgreSQL", "canary"])
    assert ": DB_HOST leads to a read-only standby" in verified.text("PostgreSQL")
    assert "needs the primary" in verified.remedy("PostgreSQL")


def test_a_replica_of_redis_is_a_failed_check(settings: dict[str, str], servers: Servers, verify: Verify) -> None:
    with closing(redis.Redis.from_url(servers.embedded.redis_url)) as client:
        client.replicaof("127.0.0.1", str(free_port()))
        verified = verify(settings)
    assert "Redis role" in verified.with_status("failed")
    assert verified.text("Redis role") == "REDIS_URL leads to a read-only replica"
    assert "primary" in verified.remedy("Redis role")


# Servers without room.


@pytest.fixture
def full(servers: Servers, settings: dict[str, str], start_listener: StartListener) -> Iterator[ExitStack]:
    """A PostgreSQL without a connection left but those reserved for superusers; the listener has one."""
    url = servers.embedded.database_url
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("ALTER SYSTEM SET max_connections = 12")
        connection.execute("CREATE ROLE ordinary LOGIN PASSWORD 'given'")
    servers.stop_postgres()
    servers.start_postgres()
    start_listener(settings).wait_until_aligned()
    with ExitStack() as taken:
        fill(taken, make_conninfo(url, user="ordinary", password="given"))
        yield taken


def fill(taken: ExitStack, url: str) -> None:
    """Open connections until the server refuses one."""
    refused = False
    while not refused:
        try:
            taken.callback(psycopg.connect(url).close)
        except psycopg.OperationalError:
            refused = True


def test_a_database_without_a_connection_left_is_a_failed_check(
    full: ExitStack, settings: dict[str, str], servers: Servers, verify: Verify
) -> None:
    ordinary = settings | {"DB_USER": "ordinary", "DB_PASSWORD": "given"}
    verified = verify(ordinary)
    assert (verified.code, verified.with_status("failed")) == (1, ["PostgreSQL", "canary"])
    assert "no connection is left" in verified.text("PostgreSQL")
    assert "remaining connection slots" in verified.text("PostgreSQL")
    assert "max_connections" in verified.remedy("PostgreSQL")

    verified = verify(settings)  # a superuser still gets in
    assert (verified.code, verified.with_status("failed")) == (0, [])
    assert "only 0 are left" in verified.text("connections")
    assert "connections" in verified.with_status("warning")

    fill(full, servers.embedded.database_url)
    verified = verify(settings)
    assert (verified.code, verified.with_status("failed")) == (1, ["PostgreSQL", "canary"])
    assert "too many clients" in verified.text("PostgreSQL")


def test_too_few_connections_for_a_rollback_are_a_warning(servers: Servers) -> None:
    with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection:
        [most, reserved, used] = connection.execute(postgres._CONNECTIONS).fetchall()[0]
        free = most - reserved - used
        assert postgres.connections(connection, free).status is CheckStatus.OK
        assert postgres.connections(connection, free + 1).status is CheckStatus.WARNING


def test_a_notification_queue_that_fills_is_a_warning_and_then_a_failed_check(servers: Servers) -> None:
    url = servers.embedded.database_url
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("ALTER SYSTEM SET max_notify_queue_pages = 64")
    servers.stop_postgres()
    servers.start_postgres()
    with closing(psycopg.connect(url, autocommit=True)) as connection, closing(psycopg.connect(url)) as forgetful:
        forgetful.execute("LISTEN weather")
        forgetful.commit()
        forgetful.execute("SELECT 1")  # and never ends this transaction
        seen = []
        for number in range(60):
            seen.append(postgres.queue(connection).status)
            connection.execute("SELECT pg_notify('weather', rpad(%s, 7900))", [str(number)])
    assert list(dict.fromkeys(seen)) == [CheckStatus.OK, CheckStatus.WARNING, CheckStatus.FAILED]


def test_a_policy_that_may_evict_the_stream_is_a_warning_and_a_full_redis_a_failed_check(servers: Servers) -> None:
    with closing(redis.Redis.from_url(servers.embedded.redis_url)) as client:
        assert redis_checks.memory(client.info()).status is CheckStatus.OK
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert redis_checks.memory(client.info()).status is CheckStatus.OK  # without a maxmemory nothing is evicted
        client.config_set("maxmemory", "100mb")
        assert redis_checks.memory(client.info()).status is CheckStatus.WARNING
        client.config_set("maxmemory-policy", "noeviction")
        assert redis_checks.memory(client.info()).status is CheckStatus.OK
        client.config_set("maxmemory", "100kb")
        assert redis_checks.memory(client.info()).status is CheckStatus.FAILED


def test_the_persistence_of_redis_is_reported(servers: Servers) -> None:
    with closing(redis.Redis.from_url(servers.embedded.redis_url)) as client:
        assert redis_checks.persistence(client, client.info()).text.startswith("appendonly yes")
        client.config_set("appendonly", "no")
        client.config_set("save", "900 1")
        assert redis_checks.persistence(client, client.info()).text.startswith("appendonly no, save '900 1'")
