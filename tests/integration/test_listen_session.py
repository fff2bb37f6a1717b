"""`ListenSession`: one query LISTENs on all channels or on none, and no notification is lost or reordered."""

import select
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from app.core.listen_session import ListenSession, Notification
from app.core.postgres import canary_sql, listen_sql, literal
from tests.support.waiting import wait_until


@pytest.fixture
def listening(database: str) -> Iterator[psycopg.Connection]:
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        yield connection


def channels(connection: psycopg.Connection) -> list[str]:
    """The channels on which a session LISTENs, read past its `ListenSession`."""
    connection.pgconn.nonblocking = 0
    result = connection.pgconn.exec_(b"SELECT pg_listening_channels() ORDER BY 1")
    connection.pgconn.nonblocking = 1
    return [(result.get_value(row, 0) or b"").decode() for row in range(result.ntuples)]


def receive(session: ListenSession, count: int) -> list[Notification]:
    """Wait for `count` notifications."""
    notifications: list[Notification] = []

    def enough() -> bool:
        select.select([session], [], [], 0.1)
        notifications.extend(session.receive())
        return len(notifications) >= count

    wait_until(enough)
    return notifications


def answer(session: ListenSession) -> list[Notification]:
    """Wait until the session is idle; return the notifications that arrived until then."""
    notifications: list[Notification] = []

    def is_answered() -> bool:
        select.select([session], [], [], 0.1)
        notifications.extend(session.receive())
        return session.is_idle

    wait_until(is_answered)
    return notifications


def test_all_channels_are_listened_on_in_one_round_trip(listening: psycopg.Connection) -> None:
    session = ListenSession(listening.pgconn)
    names = ["a", "With Space", 'quo"te', "ünï", "a.b", "select"]
    session.send(listen_sql(names, f"SELECT pg_notify('a', {literal('it')})"))
    assert receive(session, 1) == [Notification("a", b"it")]
    assert channels(listening) == sorted(names)


@pytest.mark.parametrize(
    "failing",
    ["SELECT 1/0", "LISTEN", "SELECT pg_notify('a', repeat('x', 8000))", "SELECT pg_notify(repeat('x', 64), '')"],
)
@pytest.mark.parametrize("at", ["in the middle", "at the end"])
def test_a_listen_that_fails_partly_listens_on_no_channel(listening: psycopg.Connection, failing: str, at: str) -> None:
    session = ListenSession(listening.pgconn)
    statements = [listen_sql(["a", "b"]), failing] + ([listen_sql(["c"])] if at == "in the middle" else [])
    session.send("; ".join(statements))
    assert answer(session) == []
    assert session.take_outcome()
    assert channels(listening) == []


def test_a_failed_query_is_reported_once_and_the_session_goes_on_with_the_channels_of_before(
    listening: psycopg.Connection,
) -> None:
    session = ListenSession(listening.pgconn)
    session.send(listen_sql(["a"], "SELECT pg_notify('a', '1')"))
    assert answer(session) == [Notification("a", b"1")]
    session.send(listen_sql(["b"], "SELECT 1/0"))
    assert answer(session) == []
    assert isinstance(session.take_outcome(), psycopg.errors.DivisionByZero)
    assert session.take_outcome() is None
    session.send("SELECT pg_notify('a', '2')")
    assert answer(session) == [Notification("a", b"2")]
    assert channels(listening) == ["a"]


def test_a_cancelled_query_is_a_failure_and_no_lost_session(
    listening: psycopg.Connection, connection: psycopg.Connection
) -> None:
    session = ListenSession(listening.pgconn)
    session.send("SELECT pg_sleep(60)")
    backend = [listening.pgconn.backend_pid]
    sleeps = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
    wait_until(lambda: connection.execute(sleeps, backend).rowcount)  # a cancel before the query begins cancels nothing
    connection.execute("SELECT pg_cancel_backend(%s)", backend)
    assert answer(session) == []
    assert isinstance(session.take_outcome(), psycopg.errors.QueryCanceled)


def test_waiting_notifications_are_received_in_order_and_queries_in_between_lose_none(
    listening: psycopg.Connection, connection: psycopg.Connection
) -> None:
    session = ListenSession(listening.pgconn)
    session.send(listen_sql(["a"], "SELECT pg_notify('a', '0')"))
    receive(session, 1)
    connection.execute("SELECT pg_notify('a', n::text) FROM generate_series(1, 5000) n")
    notifications = []
    for number in range(20):
        session.send(listen_sql(["a"], f"SELECT pg_notify('a', 'own {number}')"))
        notifications += [note.payload.decode() for note in answer(session)]
    assert [text for text in notifications if not text.startswith("own")] == [str(n) for n in range(1, 5001)]
    assert [text for text in notifications if text.startswith("own")] == [f"own {number}" for number in range(20)]


def test_a_terminated_session_raises_an_error(listening: psycopg.Connection, connection: psycopg.Connection) -> None:
    session = ListenSession(listening.pgconn)
    session.send(listen_sql(["a"], "SELECT pg_notify('a', '0')"))
    receive(session, 1)
    connection.execute("SELECT pg_terminate_backend(%s, 5000)", [listening.pgconn.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        receive(session, 1)


def test_a_sessions_own_notification_is_received_before_the_end_of_its_query(
    listening: psycopg.Connection, connection: psycopg.Connection
) -> None:
    session = ListenSession(listening.pgconn)
    for number in range(200):
        connection.execute("SELECT pg_notify('a', 'of another')")
        session.send(listen_sql(["a"], f"SELECT pg_notify('a', '{number}')"))
        assert Notification("a", str(number).encode()) in answer(session)


@pytest.mark.parametrize("text", ["", "it's", "back\\slash", "E'\\''", "ünï \N{SNOWMAN}", "a;b--c", "$$", "\t\n"])
def test_a_literal_is_the_text_whatever_the_servers_settings(connection: psycopg.Connection, text: str) -> None:
    for setting in ("on", "off"):
        try:
            connection.execute(f"SET standard_conforming_strings = {setting}")
        except psycopg.errors.FeatureNotSupported:
            continue  # PostgreSQL 19 has one setting left
        result = connection.pgconn.exec_(f"SELECT {literal(text)}".encode())
        assert result.get_value(0, 0) == text.encode()


def test_pg_stat_activity_shows_the_query_of_a_listening_session_on_one_line(
    connection: psycopg.Connection, listening: psycopg.Connection
) -> None:
    listening.execute(listen_sql(["match_change"], canary_sql("match_change", "a token", 1.5)).encode())
    query = "SELECT query FROM pg_stat_activity WHERE pid = %s"
    [[shown]] = connection.execute(query, [listening.info.backend_pid]).fetchall()
    assert shown.startswith('LISTEN "match_change"; SELECT pg_notify')
    assert "\n" not in shown
