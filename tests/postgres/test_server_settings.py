"""No session depends on a setting of a role, a database or a server that it has not made itself."""

import math
import select
import time
from collections.abc import Iterator
from contextlib import closing

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from app.core.canary import Canary, read_canary
from app.core.listen_session import ListenSession
from app.core.postgres import canary_sql, listen_sql, listening_conninfo
from app.core.postgres_connect import OpenSession, inspect, lock_wait, open_session
from app.core.query_connection import QueryConnection
from listener.verify import postgres_checks
from listener.verify.result import CheckStatus
from tests.conftest import StartApp, StartListener, Verify
from tests.postgres.observed import MATCH, heard
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.waiting import wait_until

# A pg_notify() of somebody else, found before PostgreSQL's own.
SHADOW = """
CREATE SCHEMA shadow;
CREATE FUNCTION shadow.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT';
GRANT USAGE ON SCHEMA shadow TO PUBLIC
"""
HOSTILE = {
    "DateStyle": "SQL, DMY",
    "TimeZone": "Australia/Lord_Howe",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "search_path": "shadow, pg_catalog",
    "standard_conforming_strings": "off",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "xmloption": "document",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_session_timeout": "100ms",
    "row_security": "off",
    "quote_all_identifiers": "on",
}


def set_for_role(server: PostgresServer, name: str, value: str) -> None:
    statement = sql.SQL("ALTER ROLE {} SET {} = {}").format(
        sql.Identifier(ROLE), sql.Identifier(name), sql.SQL(value) if name == "search_path" else sql.Literal(value)
    )
    with closing(server.connect()) as connection:
        connection.execute(statement)


@pytest.fixture
def writer(primary: PostgresServer) -> Iterator[psycopg.Connection]:
    """A serializable transaction that has written and goes on, for which a deferrable one waits."""
    with closing(psycopg.connect(primary.conninfo())) as connection:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.execute("INSERT INTO score VALUES (0, 0)")
        yield connection


@pytest.mark.usefixtures("writer")
def test_events_arrive_snapshots_are_taken_and_verify_passes_whatever_the_role_has_set(
    primary: PostgresServer,
    settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
) -> None:
    primary.execute(SHADOW)
    for name, value in HOSTILE.items():
        set_for_role(primary, name, value)
    query = "SELECT json_build_object('it''s', %(match_id)s::text)"
    settings |= {"WEB_CONCURRENCY": "1", "SNAPSHOT_QUERY": query}
    start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    direct = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    with app.client(MATCH) as by_redis, direct.client(MATCH) as directly:
        for client in (by_redis, directly):
            assert client.wait_for_initial_load()["data"] == {"it's": str(MATCH)}
        primary.insert(1, 3)
        for client in (by_redis, directly):
            client.wait_for_updates(3)
            assert heard(client) == [1, 2, 3]
    direct.stop()
    assert verify(settings).with_status("failed") == []


NEVER = {
    "post_auth_delay",  # holds up every login
    "role", "session_authorization", "session_preload_libraries", "local_preload_libraries",
    "ignore_system_indexes", "zero_damaged_pages", "allow_system_table_mods", "jit_provider",
}  # fmt: skip


def extremes(server: PostgresServer) -> list[tuple[str, str]]:
    """Every setting that a role can have, with each of its values, or the lowest and the highest."""
    rows = server.execute(
        "SELECT name, vartype, setting, enumvals, min_val, max_val FROM pg_settings "
        "WHERE context IN ('user', 'superuser', 'backend', 'superuser-backend') AND vartype <> 'string'"
    )
    found = []
    for name, kind, now, values, lowest, highest in rows:
        choices = {"bool": ["on", "off"], "enum": values}.get(kind) or [lowest, highest]
        found += [(name, value) for value in choices if value != now and name not in NEVER]
    return found


def canary(opened: OpenSession) -> Canary:
    """Send a canary and wait for it."""
    session, payloads = ListenSession(opened.connection.pgconn), list[bytes]()
    session.send(listen_sql(["own"], canary_sql("own", "token", time.time())))

    def came_back() -> bool:
        select.select([session], [], [], 0.1)
        payloads.extend(note.payload for note in session.receive())
        return bool(payloads and session.is_idle)

    wait_until(came_back, 5)
    return read_canary(payloads[0])


@pytest.mark.long
def test_no_setting_that_a_role_can_have_changes_what_a_session_reads(primary: PostgresServer) -> None:
    conninfo = make_conninfo(primary.conninfo(ROLE), target_session_attrs="read-write")
    opened = open_session(listening_conninfo(conninfo, "notifymux-test"))
    opened.connection.close()
    cluster = opened.cluster
    tried = 0
    for name, value in extremes(primary):
        try:
            set_for_role(primary, name, value)
        except psycopg.Error:
            continue  # a limit of this machine
        opened = open_session(listening_conninfo(conninfo, "notifymux-test"))
        with closing(opened.connection):
            seen = canary(opened)
            assert (seen.canary, seen.max_connections) == ("token", 50), (name, value)
            assert math.isclose(seen.clock or 0, time.time(), abs_tol=1), (name, value, seen.clock)
            assert opened.cluster == cluster, (name, value)
            assert not inspect(listening_conninfo(conninfo, "notifymux-test"), opened.backend).is_at_work, (name, value)
            opened.connection.pgconn.nonblocking = 0
            assert lock_wait(opened.connection.pgconn).sessions == 0
            checks = {check.name: check for check in postgres_checks.run_checks(opened.connection, ["c"], 1)}
            assert checks["triggers c"].status is CheckStatus.WARNING, (name, value, checks)
        snapshots = QueryConnection.open(conninfo, "notifymux-snapshot", 5.0)
        text = snapshots.value(b"SELECT json_build_object('it''s', %(match_id)s::text)", {"match_id": "a'b\\c"}, 5.0)
        assert msgspec.json.decode(text or b"") == {"it's": "a'b\\c"}, (name, value)
        assert snapshots.is_usable()
        snapshots.close()
        primary.execute("ALTER ROLE plain RESET ALL")
        tried += 1
    assert tried > 200
