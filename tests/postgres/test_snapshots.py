"""Snapshots from servers that stall, move and freeze: none blocks its worker, and each failure has its reason."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from app.broadcast.query_pool import QueryPool, QueryResult
from app.core import query_connection
from app.core.query_files import parse_query
from tests.support.loops import async_test
from tests.support.postgres_cluster import PostgresServer
from tests.support.proxy import Proxy

pytestmark = pytest.mark.long

PORT = "SELECT to_json(%(match_id)s || ' of ' || current_setting('port'))"


class Snapshots(QueryPool):
    """A pool whose query is always the same."""

    def __init__(self, url: Callable[[], str], query: str, connections: int, timeout: float) -> None:
        super().__init__(url, connections, timeout, "notifymux-snapshot/test", "the snapshot could not be taken")
        self._snapshot = parse_query("snapshot", query)

    async def of(self, match: str) -> QueryResult:
        return await self.run(self._snapshot, {"match_id": match})


@asynccontextmanager
async def snapshots(
    url: Callable[[], str], query: str = PORT, timeout: float = 5.0, connections: int = 1
) -> AsyncIterator[Snapshots]:
    queries = Snapshots(url, query, connections, timeout)
    try:
        yield queries
    finally:
        await queries.close()


def at(server: PostgresServer, address: Proxy) -> Callable[[], str]:
    return lambda: make_conninfo(server.conninfo(), port=address.port, target_session_attrs="read-write")


async def while_the_loop_goes_on(queries: Snapshots, match: str = "7") -> QueryResult:
    """Fail if the query, which takes a second and more, holds up the loop: then it turns once at most."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.02)
            turns += 1

    turning = asyncio.create_task(turn())
    snapshot = await queries.of(match)
    turning.cancel()
    assert turns >= 3, "the loop was held up"
    return snapshot


def test_a_match_is_one_value_whatever_it_is_called(primary: PostgresServer) -> None:
    @async_test
    async def run() -> None:
        async with snapshots(primary.conninfo, "SELECT to_json(%(match_id)s::text) -- 100%%") as queries:
            for match in ("7", "it's", "a\\b", "%s", "ünï", "'; DROP TABLE score; --"):
                expected = f'"{match}"'.replace("\\", "\\\\").encode()
                assert (await queries.of(match)).data == expected
            assert (await queries.of("\0")).error

    run()
    assert primary.value("SELECT count(*) FROM score") == 0


def test_a_frozen_server_is_given_up_in_time_and_the_reason_is_logged(
    primary: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    @async_test
    async def run() -> None:
        async with snapshots(primary.conninfo, timeout=2.0) as queries:
            assert (await queries.of("1")).error is None
            primary.freeze()
            began = time.monotonic()
            assert (await while_the_loop_goes_on(queries)).error
            assert time.monotonic() - began < 10, "it never answers"
            primary.thaw()
            assert (await queries.of("2")).error is None

    with caplog.at_level(logging.WARNING):
        run()
    assert "TimeoutError" not in caplog.text
    assert "connecting to PostgreSQL takes longer than 2 s" in caplog.text or "timeout expired" in caplog.text


def test_a_query_that_takes_too_long_names_itself(primary: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    @async_test
    async def run() -> None:
        async with snapshots(primary.conninfo, "SELECT %(match_id)s, pg_sleep(60)", timeout=0.5) as queries:
            assert (await queries.of("7")).error

    with caplog.at_level(logging.WARNING):
        run()
    assert "the query takes longer than 0.5 s" in caplog.text or "statement timeout" in caplog.text


def test_whatever_blocks_before_the_connect_holds_up_neither_the_loop_nor_the_end(
    primary: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    def silent() -> str:
        go_on.wait(10)
        return primary.conninfo()

    @async_test
    async def run() -> None:
        async with snapshots(silent, timeout=0.3) as queries:
            assert (await while_the_loop_goes_on(queries)).error
            assert (await while_the_loop_goes_on(queries)).error  # which waits for the first one's connection
            go_on.set()

    with caplog.at_level(logging.WARNING):
        run()
    assert "connecting to PostgreSQL takes longer than 0.3 s" in caplog.text
    assert "the wait for one of SNAPSHOT_POOL connections takes longer than 0.3 s" in caplog.text


def test_an_idle_connection_whose_path_was_cut_is_not_used(primary: PostgresServer, address: Proxy) -> None:
    @async_test
    async def run() -> None:
        async with snapshots(at(primary, address)) as queries:
            assert (await queries.of("1")).error is None
            address.drop()
            assert (await queries.of("2")).error is None
            address.stall_established()
            assert (await queries.of("3")).error is None

    run()


def test_a_connection_that_is_always_in_use_follows_its_address_in_the_end(
    primary: PostgresServer, standby: PostgresServer, address: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_connection, "_MAX_AGE_SECONDS", 0.5)

    @async_test
    async def run() -> None:
        async with snapshots(at(primary, address)) as queries:
            assert (await queries.of("1")).data.decode() == f'"1 of {primary.port}"'
            standby.promote()
            address._server_port = standby.port  # no connection is cut
            deadline = time.monotonic() + 5
            while (await queries.of("2")).data.decode() != f'"2 of {standby.port}"':
                assert time.monotonic() < deadline

    run()


def test_a_short_outage_delays_a_snapshot_and_a_long_one_names_its_reason(
    primary: PostgresServer, address: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    @async_test
    async def run() -> None:
        async with snapshots(at(primary, address), timeout=3.0) as queries:
            address.cut()
            asyncio.get_running_loop().call_later(0.7, address.resume)
            assert (await while_the_loop_goes_on(queries)).error is None
        primary.stop()
        async with snapshots(primary.conninfo, timeout=1.0) as queries:
            assert (await while_the_loop_goes_on(queries)).error

    with caplog.at_level(logging.WARNING):
        run()
    assert "Connection refused" in caplog.text


def test_unused_connections_are_closed(primary: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.broadcast.query_pool._MAX_IDLE_SECONDS", 0.2)
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'notifymux-snapshot%'"

    @async_test
    async def run() -> None:
        async with snapshots(primary.conninfo, connections=3) as queries:
            found = await asyncio.gather(*(queries.of(str(number)) for number in range(20)))
            assert all(snapshot.error is None for snapshot in found)
            assert 1 <= primary.value(sessions) <= 3
            deadline = time.monotonic() + 5
            with psycopg.connect(primary.conninfo(), autocommit=True) as connection:
                while connection.execute(sessions).fetchone() != (0,):
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)

    run()
