"""What a database does besides, to a listener with SOURCE=wal: large transactions, loads, a restored backup."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import StartApp
from tests.support.postgres_cluster import PostgresServer
from tests.support.programs import Listener
from tests.support.waiting import hold_for, wait_until
from tests.wal.conftest import RedisPath, StartReader
from tests.wal.stream import EMIT, Stream, emit

RETAINED = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) FROM pg_replication_slots"
LOAD = "INSERT INTO load SELECT n, repeat('x', 1000) FROM generate_series(1, %s) n"
UPDATE = '{{"operation": "INSERT", "match_id": 7, "data": {}}}'
MEGABYTES = 60


def assert_session_kept(listener: Listener) -> None:
    assert listener.log.count("aligned at") + listener.log.count("begins after") == 1, listener.log


@pytest.mark.long
def test_events_go_on_while_a_transaction_is_open_and_others_load_tables(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    primary.execute("CREATE TABLE load (id int, text text)")
    listener = start_reader().wait_until_aligned()
    with closing(primary.connect()) as older, closing(primary.connect()) as loading:
        older.execute("BEGIN")
        older.execute(EMIT, [json.dumps("older")])
        with loading.transaction():
            loading.execute(LOAD, [MEGABYTES * 1000 // 2])
            emit(primary, 1)
            wait_until(lambda: stream.payloads() == [1])
            loading.execute(LOAD, [MEGABYTES * 1000 // 2])
            loading.execute(EMIT, [json.dumps("loaded")])
        emit(primary, 2)
        wait_until(lambda: stream.payloads() == [1, "loaded", 2], 30, lambda: str(stream.payloads()))
        older.execute("COMMIT")
    wait_until(lambda: stream.payloads() == [1, "loaded", 2, "older"])
    stream.assert_one_epoch()
    assert_session_kept(listener)


@pytest.mark.long
def test_what_another_database_writes_is_not_kept_for_the_slot(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    primary.execute("CREATE DATABASE other")
    primary.execute("CREATE TABLE load (id int, text text)", dbname="other")
    listener = start_reader(CANARY_INTERVAL="0.2").wait_until_aligned()
    primary.execute(LOAD, MEGABYTES * 1000, dbname="other")
    emit(primary, 1)
    wait_until(lambda: stream.payloads() == [1])

    def is_forgotten() -> bool:
        primary.execute("CHECKPOINT")  # as comes by itself; it writes what lets the slot's position move
        return bool(primary.value(RETAINED) < MEGABYTES * 1_000_000 / 4)

    wait_until(is_forgotten, 30)
    assert_session_kept(listener)


@pytest.mark.long
def test_a_low_wal_sender_timeout_does_not_end_the_session_even_while_redis_is_away(
    primary: PostgresServer, stream: Stream, start_reader: StartReader, redis_path: RedisPath
) -> None:
    primary.set("wal_sender_timeout", "5s")
    listener = start_reader(**redis_path.settings, BUFFER_EVENTS="100").wait_until_aligned()
    hold_for(7.0, lambda: listener.running)
    redis_path.proxy.stall()
    emit(primary, *range(200))  # more than the buffer takes, so that the slot is not read
    hold_for(7.0, lambda: listener.running)
    redis_path.proxy.resume()
    wait_until(lambda: stream.payloads() == [*range(200)], 30, lambda: listener.log)
    stream.assert_one_epoch()
    assert "terminating walsender process due to replication timeout" not in primary.log
    assert_session_kept(listener)


@pytest.mark.long
def test_a_backup_that_is_older_than_the_stream_is_one_announced_gap(
    primary: PostgresServer, settings: dict[str, str], start_reader: StartReader, start_app: StartApp, tmp_path: Path
) -> None:
    listener = start_reader().wait_until_aligned()
    with primary.backup(tmp_path / "restored") as restored:
        app = start_app(settings).wait_until_ready()
        with app.client(7) as client:
            client.wait_for_initial_load()
            emit(primary, *(json.loads(UPDATE.format(number)) for number in range(50)))
            client.wait_for_updates(50)
            assert listener.stop() == 0
            primary.crash()
            restored.start()
            assert restored.value("SELECT count(*) FROM pg_replication_slots") == 0
            start_reader(DB_PORT=str(restored.port)).wait_until_aligned()
            wait_until(lambda: client.of_type("resync"))
            emit(restored, *(json.loads(UPDATE.format(number)) for number in range(50, 60)))
            assert [update["data"] for update in client.wait_for_updates(60)] == [*range(60)]
            assert len(client.of_type("resync")) == 1


def test_a_slots_name_that_another_program_or_database_has_taken_is_waited_out(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    primary.execute("SELECT pg_create_logical_replication_slot('notifymux', 'test_decoding')")
    listener = start_reader()
    listener.wait_for_log("the replication slot notifymux is of another database or of another program")
    primary.execute("SELECT pg_drop_replication_slot('notifymux')")
    listener.wait_until_aligned()
    emit(primary, 1)
    wait_until(lambda: stream.payloads() == [1])
