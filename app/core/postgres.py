"""PostgreSQL as both sides need it: one LISTENing session, driven without waiting, and what its errors mean.

The listener waits for the session with `poll`, a worker with its event loop; everything else about a session is the
same for both and is here. Notifications leave by one path, `ListenSession.receive`, so none can be overtaken or lost
between a query's answer and the next read.
"""

from collections import deque
from collections.abc import Iterable
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
    return libpq.make_conninfo(
        host=settings.db_host,
        port=settings.db_port,
        user=settings.db_user,
        password=password,
        dbname=settings.db_name,
        sslmode=settings.db_sslmode,
        sslrootcert=settings.db_sslrootcert,
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
        options=f"{options} -c tcp_user_timeout={_DEAD_AFTER_MS} -c idle_session_timeout=0"
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
                raise error_from_result(result)
        if self._waiting and not self._running:
            self._pgconn.send_query(self._waiting.popleft())
            self._running = True
        self._pgconn.flush()
