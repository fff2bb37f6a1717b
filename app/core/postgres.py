"""PostgreSQL as both sides need it: one LISTENing session, driven without waiting, and what its errors mean.

The listener waits for the session with `poll`, a worker with its event loop; everything else about a session is the
same for both and is here. Notifications leave by one path, `ListenSession.receive`, so none can be overtaken or lost
between a query's answer and the next read.
"""

import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import conninfo as libpq
from psycopg import pq
from psycopg.errors import error_from_result

from app.core.config import Settings
from app.core.operator_errors import OperatorError

CONNECT_TIMEOUT_SECONDS = 3  # seconds
# What either end gives an unanswered segment before it drops the connection: below the 10 s in which a session whose
# path is cut is replaced, so that the server has forgotten the old one by then.
_DEAD_AFTER_MS = 6000


class Notification(NamedTuple):
    """What PostgreSQL delivered; the payload is UTF-8, or whatever bytes an SQL_ASCII database holds."""

    channel: str
    payload: bytes


def database_url(settings: Settings) -> str:
    """The settings as a libpq connection string. It holds the password: never log it.

    Raises:
        OperatorError: DB_HOST is not given.
    """
    if settings.db_host is None:
        raise OperatorError("DB_HOST is not set: it takes the host of the PostgreSQL to listen to")
    password = settings.db_password.get_secret_value() if settings.db_password else None
    if settings.db_password_file:
        try:
            password = settings.db_password_file.read_text(encoding="utf-8").strip("\r\n")
        except OSError as error:
            raise OperatorError(f"DB_PASSWORD_FILE: {error}") from None
    return libpq.make_conninfo(
        host=settings.db_host,
        port=settings.db_port,
        user=settings.db_user,
        password=password,
        dbname=settings.db_name,
        sslmode=settings.db_sslmode,
        sslrootcert=settings.db_sslrootcert,
        target_session_attrs="read-write",
    )


def describe(url: str) -> str:
    """Where a connection string leads and as whom, for people, without its password."""
    return f"{describe_server(url)} as {libpq.conninfo_to_dict(url).get('user', '?')}"


def describe_server(url: str) -> str:
    """Where a connection string leads."""
    parts = libpq.conninfo_to_dict(url)
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"{parts.get('host', 'localhost')}{port}, database {parts.get('dbname', '?')}"


def listening_conninfo(url: str, application_name: str) -> str:
    """`url` for a session that LISTENs: named, and dropped by both ends within seconds when its path is cut."""
    options = libpq.conninfo_to_dict(url).get("options") or ""
    return libpq.make_conninfo(
        url,
        application_name=application_name,
        client_encoding="UTF8",
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        keepalives=1,
        keepalives_idle=2,
        keepalives_interval=1,
        keepalives_count=4,
        tcp_user_timeout=_DEAD_AFTER_MS,
        options=f"{options} -c statement_timeout=0 -c lock_timeout=0 -c client_connection_check_interval=2s -c tcp_user_timeout={_DEAD_AFTER_MS} -c idle_session_timeout=0"
        " -c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=4".strip(),
    )


def listen_sql(channels: Iterable[str], then: str = "") -> str:
    """One simple query that LISTENs on all of `channels` or on none, and then does `then`.

    What a session sends that LISTENs already begins so too: `pg_stat_activity` goes on showing it as one that LISTENs.
    """
    return "; ".join([*(f"LISTEN {_identifier(channel)}" for channel in channels), *([then] if then else [])])


def literal(text: str) -> str:
    """`text` as an SQL literal, whatever standard_conforming_strings says."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


IDENTITY = """
SELECT pg_backend_pid(), (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())),
       (SELECT system_identifier FROM pg_control_system()),
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint,
       (SELECT count(set_config(name, '0', false)) FROM pg_settings WHERE name IN ('transaction_timeout'))
"""
AT_WORK = """
SELECT EXISTS (SELECT FROM pg_stat_get_activity({pid}) a WHERE a.backend_start = '{start}'
                 AND a.wait_event_type IS DISTINCT FROM 'Client'
                 AND NOT (a.wait_event_type = 'Lock' AND NOT EXISTS (
                     SELECT FROM pg_locks WHERE pid = a.pid AND NOT granted))),
       count(*), coalesce(extract(epoch FROM clock_timestamp() - min(waitstart)), 0)
FROM pg_locks WHERE locktype = 'object' AND database = 0 AND classid = 1262 AND objid = 0 AND NOT granted
"""


def ask(pgconn: pq.abc.PGconn, sql: str, within: float) -> list[list[bytes | None]]:
    """One simple query's rows, within a deadline."""
    deadline, rows = time.monotonic() + within, []
    pgconn.nonblocking = 1
    pgconn.send_query(sql.encode())
    while True:
        unsent = pgconn.flush()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                return rows
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise error_from_result(result)
            rows = [[result.get_value(i, j) for j in range(result.nfields)] for i in range(result.ntuples)]
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN | (select.POLLOUT if unsent else 0))
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise psycopg.OperationalError(f"no answer within {within:g} s")
        pgconn.consume_input()


def connect(conninfo: str) -> psycopg.Connection:
    try:
        return psycopg.connect(conninfo, autocommit=True)
    except psycopg.OperationalError as error:
        if "session is read-only" not in str(error):
            raise
        return psycopg.connect(libpq.make_conninfo(conninfo, target_session_attrs="primary"), autocommit=True)


def look(conninfo: str, pid: int, start: str) -> tuple[bool | None, int, float]:
    """Whether a backend is at work (None: nobody can tell), and how many wait for the lock, for how long."""
    try:
        connection = connect(libpq.make_conninfo(conninfo, application_name="notifymux-look", connect_timeout=2))
    except psycopg.Error:
        return None, 0, 0.0
    try:
        [[at_work, waiters, seconds]] = ask(connection.pgconn, AT_WORK.format(pid=pid, start=start), 3)
    except psycopg.Error:
        return None, 0, 0.0
    finally:
        connection.close()
    return at_work == b"t", int(waiters), float(seconds)


class Job(threading.Thread):
    """A call in a thread of its own, which nobody has to wait for."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call, self.result, self.error = call, None, None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    @property
    def done(self) -> bool:
        return not self.is_alive()


class ListenSession:
    """The notification side of one libpq connection. It never waits and has no thread, clock or loop of its own.

    Args:
        pgconn: an open connection, which this object alone uses from now on.
    """

    # Queries not sent yet; more mean that the server has not answered for minutes, which the canary notices first.
    _MOST_WAITING = 100

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        self._pgconn.nonblocking = 1
        self._waiting: deque[bytes] = deque()
        self._running = False
        self.failed: str | None = None

    @property
    def idle(self) -> bool:
        """Whether every query was answered; what they notified was received then."""
        return not self._running and not self._waiting

    def fileno(self) -> int:
        """The socket, to be waited for until it is readable."""
        return self._pgconn.socket

    def send(self, sql: str) -> None:
        """Sends one simple query, or queues it behind the one that runs.

        Raises:
            psycopg.Error: the session is lost.
        """
        if len(self._waiting) >= self._MOST_WAITING:
            raise psycopg.OperationalError(f"{self._MOST_WAITING} queries wait for an answer")
        self._waiting.append(sql.encode())
        self._advance()

    def receive(self) -> list[Notification]:
        """All notifications the server has sent since, in order; empty when there are none.

        Raises:
            psycopg.Error: the session is lost, or a query failed.
        """
        self._pgconn.consume_input()
        self._advance()
        heard: list[Notification] = []
        notifies = self._pgconn.notifies
        while note := notifies():
            heard.append(Notification(note.relname.decode(errors="replace"), note.extra))
        return heard

    def _advance(self) -> None:
        while self._running and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                self._running = False
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                error = error_from_result(result)
                if self._pgconn.status != pq.ConnStatus.OK or (error.sqlstate or "57P")[:3] == "57P":
                    raise error
                self.failed = str(error)
        if self._waiting and not self._running:
            self._pgconn.send_query(self._waiting.popleft())
            self._running = True
        self._pgconn.flush()
