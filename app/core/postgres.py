"""PostgreSQL for listener and workers: connection strings, the SQL they send, and one non-blocking LISTEN session.

The listener waits for the session's socket with `poll`, a worker with its event loop; everything else about a session
is the same for both. `ListenSession.receive` is the only way to read notifications, so none is reordered or lost
between a query's result and the next read.
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

CONNECT_TIMEOUT_SECONDS = 3
# After this time without a TCP acknowledgement either end drops the connection. A session whose path is cut is replaced
# within 10 s; by then the server must have ended the old one.
_TCP_TIMEOUT_MS = 6000
# pg_stat_get_activity() and not the view pg_stat_activity, whose joins take four times as long: the canary measures
# latency.
# On one line, because operators read it in pg_stat_activity, where psql would show every further line as a row.
_CANARY_SQL = (
    "SELECT pg_notify({channel}, json_build_object("
    "'canary', {token}, 'sent', {sent:.6f}, 'queue', pg_notification_queue_usage(), "
    "'listening', count(*) FILTER (WHERE query LIKE 'LISTEN%'), "
    "'connections', count(*) FILTER (WHERE backend_type = 'client backend'), "
    "'max_connections', current_setting('max_connections')::int)::text) "
    "FROM pg_stat_get_activity(NULL)"
)


class Notification(NamedTuple):
    """A notification as PostgreSQL delivers it; in an SQL_ASCII database the payload need not be UTF-8."""

    channel: str
    payload: bytes


def database_url(settings: Settings) -> str:
    """The settings as a libpq connection string. It contains the password: never log it.

    Raises:
        OperatorError: DB_HOST is not set.
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
    """A connection string's server, database and user for log lines, without the password."""
    return f"{describe_server(url)} as {libpq.conninfo_to_dict(url).get('user', '?')}"


def describe_server(url: str) -> str:
    """A connection string's server and database for log lines."""
    parts = libpq.conninfo_to_dict(url)
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"{parts.get('host', 'localhost')}{port}, database {parts.get('dbname', '?')}"


def listening_conninfo(url: str, application_name: str) -> str:
    """`url` for a session that LISTENs: it has a name, and both ends drop it seconds after its path is cut."""
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
        tcp_user_timeout=_TCP_TIMEOUT_MS,
        options=f"{options} -c tcp_user_timeout={_TCP_TIMEOUT_MS} -c idle_session_timeout=0"
        " -c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=4".strip(),
    )


def listen_sql(channels: Iterable[str], then: str = "") -> str:
    """One simple query that LISTENs on all of `channels`, or on none if it fails, and then runs the statement `then`.

    Later queries of the same session start with LISTEN as well, so that `pg_stat_activity` always shows them as such.
    """
    return "; ".join([*(f"LISTEN {_identifier(channel)}" for channel in channels), *([then] if then else [])])


def canary_sql(channel: str, token: str, sent: float) -> str:
    """The query that notifies a canary (`app.core.canary`) on `channel`; `sent` is the current time, Unix seconds."""
    return _CANARY_SQL.format(channel=literal(channel), token=literal(token), sent=sent)


def literal(text: str) -> str:
    """`text` as an SQL literal for either value of standard_conforming_strings."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class ListenSession:
    """The notification side of one libpq connection. It never blocks and has no thread, clock or event loop.

    Args:
        pgconn: an open connection, which only this object uses from now on.
    """

    # Queries that wait to be sent. More would mean minutes without an answer; the canary's timeout expires long before.
    _MAX_QUEUED_QUERIES = 100

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        self._pgconn.nonblocking = 1
        self._queued: deque[bytes] = deque()
        self._is_query_running = False

    def fileno(self) -> int:
        """The socket, to wait on until it is readable."""
        return self._pgconn.socket

    def send(self, sql: str) -> None:
        """Send one simple query, or queue it behind the running one.

        Raises:
            psycopg.Error: the session is lost.
        """
        if len(self._queued) >= self._MAX_QUEUED_QUERIES:
            raise psycopg.OperationalError(f"{self._MAX_QUEUED_QUERIES} queries wait for an answer")
        self._queued.append(sql.encode())
        self._advance()

    def receive(self) -> list[Notification]:
        """Return the notifications that have arrived since the last call, in order, without waiting.

        Raises:
            psycopg.Error: the session is lost, or a query failed.
        """
        self._pgconn.consume_input()
        self._advance()
        received: list[Notification] = []
        notifies = self._pgconn.notifies
        while note := notifies():
            received.append(Notification(note.relname.decode(errors="replace"), note.extra))
        return received

    def _advance(self) -> None:
        while self._is_query_running and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                self._is_query_running = False
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                raise error_from_result(result)
        if self._queued and not self._is_query_running:
            self._pgconn.send_query(self._queued.popleft())
            self._is_query_running = True
        self._pgconn.flush()
