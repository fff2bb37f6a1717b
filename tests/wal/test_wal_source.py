"""SOURCE=wal on real servers: a listener that reads a replication slot misses nothing, even alone."""

import json
import threading
import time
from contextlib import closing

import pytest

from tests.support.postgres_cluster import IN_SYNC_REP, PostgresServer
from tests.support.waiting import hold_for, wait_until
from tests.wal.conftest import RedisPath, StartReader
from tests.wal.stream import EMIT, Stream, Writers, emit

READER = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'notifymux'"
CONFIRMED = "SELECT coalesce(max(confirmed_flush_lsn - '0/0'), 0) FROM pg_replication_slots"


def test_a_lone_listener_that_is_killed_and_stays_away_misses_nothing(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    listener = start_reader().wait_until_aligned()
    emit(primary, 1, 2)
    wait_until(lambda: stream.payloads() == [1, 2])
    listener.kill()
    emit(primary, 3, 4)
    with closing(primary.connect()) as connection:
        connection.execute("BEGIN")
        connection.execute(EMIT, [json.dumps("rolled back")])
        connection.execute("ROLLBACK")
    start_reader().wait_until_aligned()
    emit(primary, 5)
    wait_until(lambda: stream.payloads() == [1, 2, 3, 4, 5], what=lambda: str(stream.payloads()))
    stream.assert_one_epoch()


def test_a_listener_takes_over_from_one_that_is_killed(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    first = start_reader().wait_until_aligned()
    second = start_reader()
    second.wait_for_log("another listener reads the replication slot")
    emit(primary, 1)
    wait_until(lambda: stream.payloads() == [1])
    first.kill()
    emit(primary, 2)
    wait_until(lambda: stream.payloads() == [1, 2], what=lambda: second.log)
    stream.assert_one_epoch()


def test_events_are_held_until_others_can_see_their_transactions(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    listener = start_reader().wait_until_aligned()
    emit(primary, 1)
    wait_until(lambda: stream.payloads() == [1])
    primary.stall_commits()
    committing = threading.Thread(target=emit, args=[primary, 2])
    committing.start()
    wait_until(lambda: primary.value(IN_SYNC_REP) == 1)
    hold_for(1.0, lambda: stream.payloads() == [1])
    assert listener.running
    primary.set("synchronous_standby_names", "")
    committing.join(20)
    wait_until(lambda: stream.payloads() == [1, 2])
    stream.assert_one_epoch()


@pytest.mark.parametrize("size", [100, 8_000, 100_000, 1_000_000])
def test_a_message_arrives_whole(primary: PostgresServer, stream: Stream, start_reader: StartReader, size: int) -> None:
    start_reader().wait_until_aligned()
    emit(primary, "x" * size)
    wait_until(lambda: stream.payloads() == ["x" * size])


def test_messages_of_a_large_transaction_come_when_it_commits_without_what_was_rolled_back_in_it(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    primary.set("logical_decoding_work_mem", "64kB")  # so that it is sent while it is open
    listener = start_reader().wait_until_aligned()
    with closing(primary.connect()) as connection:
        connection.execute("BEGIN")
        for number in range(100):
            connection.execute("SAVEPOINT s")
            connection.execute(EMIT, [json.dumps([number, "x" * 5000])])
            connection.execute("ROLLBACK TO s" if number % 2 else "RELEASE s")
        emit(primary, "before")
        wait_until(lambda: stream.payloads() == ["before"])
        connection.execute("COMMIT")
    wait_until(
        lambda: (
            [payload if isinstance(payload, str) else payload[0] for payload in stream.payloads()]
            == ["before", *range(0, 100, 2)]
        ),
        what=lambda: f"{listener.log}\n{[str(payload)[:20] for payload in stream.payloads()]}",
    )
    stream.assert_one_epoch()
    assert "a part of an open transaction with messages was rolled back" in listener.log


def test_a_redis_that_falls_back_is_filled_up_from_the_slot_even_if_the_reader_died_with_it(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    listener = start_reader(WAL_TRAIL="60").wait_until_aligned()
    emit(primary, 1)
    wait_until(lambda: stream.payloads() == [1])
    copy = stream.dump()
    emit(primary, 2, 3)
    wait_until(lambda: stream.payloads() == [1, 2, 3])
    listener.kill()
    stream.put_back(copy)
    emit(primary, 4)
    start_reader().wait_until_aligned()
    wait_until(lambda: stream.payloads() == [1, 2, 3, 4], what=lambda: str(stream.payloads()))
    stream.assert_one_epoch()


def test_where_the_slot_has_forgotten_what_redis_lost_one_gap_is_announced(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    listener = start_reader(WAL_TRAIL="0.1", CANARY_INTERVAL="0.1").wait_until_aligned()
    emit(primary, 1)
    wait_until(lambda: stream.payloads() == [1])
    copy = stream.dump()
    emit(primary, 2)
    wait_until(lambda: stream.payloads() == [1, 2])
    place = stream.entries()[-1].place
    wait_until(lambda: primary.value(CONFIRMED) > place.commit)
    listener.kill()
    stream.put_back(copy)
    emit(primary, 3)
    listener = start_reader().wait_until_aligned()
    emit(primary, 4)
    wait_until(lambda: stream.payloads()[-1] == 4, what=lambda: listener.log)
    assert "does not send the stream's last event again" in listener.log
    assert len({entry.id.epoch for entry in stream.entries()}) == 2


def test_a_slot_that_postgresql_has_given_up_is_one_gap_and_made_anew(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    listener = start_reader().wait_until_aligned()
    emit(primary, 1)
    wait_until(lambda: stream.payloads() == [1])
    listener.kill()
    wait_until(lambda: primary.value(READER) is None)
    primary.set("max_slot_wal_keep_size", "1MB")
    with closing(primary.connect()) as connection:
        for _ in range(8):
            connection.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 100000))")
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")
    wait_until(lambda: primary.value("SELECT wal_status FROM pg_replication_slots") == "lost")
    listener = start_reader().wait_until_aligned()
    emit(primary, 2)
    wait_until(lambda: stream.payloads() == [1, 2], what=lambda: listener.log)
    assert "has given up the replication slot" in listener.log
    assert len({entry.id.epoch for entry in stream.entries()}) == 2


def test_the_slot_forgets_what_has_been_in_redis_for_the_trail_and_nothing_else(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    start_reader(CANARY_INTERVAL="0.2").wait_until_aligned()
    emit(primary, 1)
    wait_until(lambda: stream.payloads() == [1])
    place = stream.entries()[-1].place
    wait_until(lambda: primary.value(CONFIRMED) >= place.commit)
    assert primary.value(CONFIRMED) <= stream.entries()[-1].place.commit


def test_a_server_that_shuts_down_is_not_held_up_although_redis_takes_nothing(
    primary: PostgresServer, stream: Stream, start_reader: StartReader, redis_path: RedisPath
) -> None:
    listener = start_reader(**redis_path.settings).wait_until_aligned()
    redis_path.proxy.cut()
    emit(primary, 1)
    primary.stop()  # within 30 s, while a walsender with an unconfirmed commit waits for ever
    primary.start()
    redis_path.proxy.resume()
    wait_until(lambda: stream.payloads() == [1], 30, lambda: listener.log)
    stream.assert_one_epoch()


def test_while_redis_is_away_the_slot_keeps_no_more_wal_back_than_its_limit(
    primary: PostgresServer, stream: Stream, start_reader: StartReader, redis_path: RedisPath
) -> None:
    more = {**redis_path.settings, "WAL_LIMIT": "2000000", "CANARY_INTERVAL": "0.2"}
    listener = start_reader(**more).wait_until_aligned()
    emit(primary, 1)
    wait_until(lambda: stream.payloads() == [1])
    redis_path.proxy.cut()
    for _ in range(2):  # while it reads the slot, and while it waits for Redis
        confirmed = primary.value(CONFIRMED)
        primary.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 3000000))")
        wait_until(lambda confirmed=confirmed: primary.value(CONFIRMED) > confirmed + 2_000_000, 40)  # type: ignore[misc]
    redis_path.proxy.resume()
    listener.wait_until_aligned(times=2)
    emit(primary, 2)
    wait_until(lambda: stream.payloads() == [1, 2])


def test_a_listener_without_redis_leaves_the_slot_to_one_that_reaches_it(
    primary: PostgresServer, stream: Stream, start_reader: StartReader, redis_path: RedisPath
) -> None:
    first = start_reader(**redis_path.settings, CANARY_INTERVAL="0.5").wait_until_aligned()
    second = start_reader()
    second.wait_for_log("another listener reads the replication slot")
    redis_path.proxy.cut()
    emit(primary, 1)
    second.wait_until_aligned()
    wait_until(lambda: stream.payloads() == [1])
    first.wait_for_log("leaves the replication slot to another one")
    redis_path.proxy.resume()
    hold_for(2.0, lambda: "aligned" not in first.log)
    stream.assert_one_epoch()


@pytest.mark.long
def test_kills_of_the_listener_and_crashes_of_postgresql_under_load_lose_and_repeat_nothing(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    listener = start_reader().wait_until_aligned()
    with Writers(primary, 6, 300) as writers:
        for round_ in range(9):
            enough = writers.total + 200
            wait_until(lambda enough=enough: writers.total > enough, 30)  # type: ignore[misc]
            listener.kill()
            if round_ % 3 == 1:
                primary.crash()
                primary.start()
            if round_ == 4:
                time.sleep(5)
            listener = start_reader()
        listener.wait_until_aligned()
    wait_until(lambda: writers.is_in(stream), 30, lambda: listener.log)
    writers.assert_in(stream)
    stream.assert_one_epoch()


@pytest.mark.long
def test_a_frozen_reader_is_replaced_and_does_no_harm_when_it_thaws(
    primary: PostgresServer, stream: Stream, start_reader: StartReader
) -> None:
    first = start_reader().wait_until_aligned()
    second = start_reader()
    second.wait_for_log("another listener reads the replication slot")
    with Writers(primary, 3, 150) as writers:
        wait_until(lambda: writers.total > 100)
        first.freeze()
        second.wait_until_aligned(within=20)
        enough = writers.total + 100
        wait_until(lambda: writers.total > enough)
        first.thaw()
        first.wait_for_log("another listener reads the replication slot")
    wait_until(lambda: writers.is_in(stream), 30, lambda: second.log)
    writers.assert_in(stream)
    stream.assert_one_epoch()
