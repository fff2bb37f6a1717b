"""Rules of docs/wal.md that are SQL and decoding (W6, W9, W11, W13), on a real PostgreSQL."""

import json
import os
import signal
from contextlib import closing

import psycopg
import pytest

from app.core.postgres_connect import Backend
from listener.wal.slot import Reader, Slot
from tests.support.postgres_cluster import PostgresServer
from tests.support.waiting import hold_for, wait_until
from tests.wal.conftest import StartReader
from tests.wal.stream import EMIT, Stream, emit

READER = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'notifymux'"
CONFIRMED = (
    "SELECT coalesce(max(confirmed_flush_lsn - '0/0'), 0) FROM pg_replication_slots WHERE slot_name = 'notifymux'"
)
NOT_TRANSACTIONAL = "SELECT pg_logical_emit_message(false, 'notifymux:match_change', %s)"
STARTED = """
    SELECT (extract(epoch FROM backend_start) * 1000000)::bigint FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""


def test_w6_what_a_passive_reader_keeps_back_is_bounded(primary: PostgresServer, start_reader: StartReader) -> None:
    start_reader(WAL_SLOT="another", NOTIFY_CHANNELS="players_change", CANARY_INTERVAL="0.2").wait_until_aligned()
    passive = start_reader(WAL_LIMIT="2000000", CANARY_INTERVAL="0.2")
    passive.wait_for_log("stays passive until the other one is gone")
    confirmed = primary.value(CONFIRMED)
    primary.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 3000000))")
    passive.wait_for_log("more than WAL_LIMIT: it is made anew", 20)
    wait_until(lambda: primary.value(CONFIRMED) > confirmed + 2_000_000, 20, lambda: passive.log)


def test_w13_messages_that_are_not_transactional_are_ignored(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    listener = start_reader().wait_until_aligned()
    with closing(primary.connect()) as connection:
        for number in (1, 2):
            connection.execute("BEGIN")
            connection.execute(NOT_TRANSACTIONAL, [json.dumps("at once")])
            connection.execute(EMIT, [json.dumps(number)])
            connection.execute("COMMIT" if number == 1 else "ROLLBACK")
        connection.execute(NOT_TRANSACTIONAL, [json.dumps("alone")])
    emit(primary, 3)
    wait_until(lambda: stream.payloads() == [1, 3], what=lambda: f"{stream.payloads()}\n{listener.log}")
    stream.assert_one_epoch()


def test_w11_only_the_very_backend_that_was_seen_is_ended(primary: PostgresServer) -> None:
    with closing(primary.connect()) as victim, closing(primary.connect()) as waiting:
        row = victim.execute(STARTED).fetchone()
        assert row
        seen = Backend(victim.info.backend_pid, row[0])
        slot = Slot(waiting.pgconn, "notifymux")
        slot.end(Reader(seen._replace(started=seen.started - 1), None, is_frozen=True))
        hold_for(0.5, lambda: victim.execute("SELECT 1").fetchone())
        slot.end(Reader(seen, None, is_frozen=True))
        with pytest.raises(psycopg.OperationalError):
            hold_for(10, lambda: victim.execute("SELECT 1").fetchone())


def test_w11_a_reader_whose_other_session_has_ended_is_frozen(
    primary: PostgresServer, start_reader: StartReader
) -> None:
    listener = start_reader().wait_until_aligned()
    with closing(primary.connect()) as connection:
        slot = Slot(connection.pgconn, "notifymux")
        reader = slot.reader()
        assert reader
        assert reader.other
        assert not reader.is_frozen
        listener.freeze()
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [reader.other.pid])
        reader = slot.reader()
        assert reader
        assert (reader.other, reader.is_frozen) == (None, True)
        listener.thaw()


@pytest.mark.long
def test_w9_and_w11_a_server_that_decodes_for_long_costs_its_reader_neither_the_session_nor_the_slot(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    first = start_reader(CANARY_INTERVAL="0.5").wait_until_aligned()
    second = start_reader(CANARY_INTERVAL="0.5")
    second.wait_for_log("another listener reads the replication slot")
    emit(primary, 1)
    wait_until(lambda: stream.payloads() == [1])
    sender = primary.value(READER)
    os.kill(sender, signal.SIGSTOP)  # as silent as a server that decodes
    try:
        emit(primary, 2)
        hold_for(10, lambda: stream.payloads() == [1])
    finally:
        os.kill(sender, signal.SIGCONT)
    wait_until(lambda: stream.payloads() == [1, 2])
    assert primary.value(READER) == sender
    assert first.log.count(" begins after ") + first.log.count(" aligned at ") == 1
    assert "is frozen" not in second.log
