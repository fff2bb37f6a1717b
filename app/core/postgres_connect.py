"""Opening a LISTEN session, and looking at one from outside. Everything here blocks: it is for a thread.

psycopg's `execute` waits without a limit for a server that is frozen, so queries are sent with `query`, which has one.
"""

import re
import select
import time
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import psycopg
from psycopg import conninfo as libpq
from psycopg import errors, pq
from psycopg.errors import error_from_result

from app.core.cluster import Cluster
from app.core.operator_errors import OperatorError, check_direct, with_remedy
from app.core.settings_sources import SettingsError
from app.core.text_encoding import client_codec, encode, own_encoding_sql
from notifymux.reconnect import ReconnectState

# Why there is no session, or no longer.
SessionError = psycopg.Error | OSError | OperatorError | SettingsError
SESSION_ERRORS = (psycopg.Error, OSError, OperatorError, SettingsError)

_QUERY_TIMEOUT_SECONDS = 4.0
_INSPECTION_TIMEOUT_SECONDS = 3.0
_ANSWERED_RETRY_SECONDS = 1.0  # the longest time between two tries of a server that answers
_ANSWERED = re.compile(r"FATAL:|ERROR:|session is (not )?read-only|server is (not )?in hot standby mode")

_COPY = {pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH}

# A backend's start is in microseconds and not a timestamp: a role's DateStyle and TimeZone change how that is printed.
# transaction_timeout is new in PostgreSQL 17: an older server refuses it among the options of the connection.
_BACKEND = """
SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint,
       (SELECT count(set_config(name, '0', false)) FROM pg_settings WHERE name = 'transaction_timeout')
FROM pg_stat_get_activity(pg_backend_pid())
"""
_TERMINATE = """
SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_get_activity({pid})
WHERE (extract(epoch FROM backend_start) * 1000000)::bigint = {started}
"""
# Neither needs a special right, unlike IDENTIFY_SYSTEM. A WAL file's name begins with the timeline, in hexadecimal.
_CLUSTER = """
SELECT (SELECT system_identifier FROM pg_control_system()),
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
"""
# Servers that only resemble PostgreSQL lack these functions, and a superuser can revoke them.
_NO_IDENTITY = (
    errors.InsufficientPrivilege,
    errors.UndefinedFunction,
    errors.FeatureNotSupported,
    errors.ObjectNotInPrerequisiteState,
)

# The first column judges by the wait event and not by the state, which a role without track_activities lacks. A backend
# that waits for its client has answered already, and one whose lock has been granted is about to go on: in both cases
# an answer that does not arrive is lost on its way.
# The others are about the lock that a transaction that notifies holds over its commit. PreCommit_Notify in
# PostgreSQL's async.c takes it: LockSharedObject(DatabaseRelationId, InvalidOid).
_LOCK_WAIT = """
       count(*), coalesce(extract(epoch FROM clock_timestamp() - min(waitstart)), 0)
FROM pg_locks WHERE locktype = 'object' AND database = 0 AND classid = 1262 AND objid = 0 AND NOT granted
"""
_INSPECTION = """
SELECT EXISTS (
         SELECT FROM pg_stat_get_activity({pid}) a
         WHERE (extract(epoch FROM backend_start) * 1000000)::bigint = {started}
           AND a.wait_event_type IS DISTINCT FROM 'Client'
           AND NOT (a.wait_event_type = 'Lock'
                    AND NOT EXISTS (SELECT FROM pg_locks WHERE pid = a.pid AND NOT granted))),
       {lock_wait}
"""


class Backend(NamedTuple):
    """A server process of PostgreSQL; both together are unique."""

    pid: int
    started: int  # microseconds since the epoch, by the server's clock


class OpenSession(NamedTuple):
    """A session that is open and leads to a primary without a pooler; `cluster` is None where it can't be known."""

    connection: psycopg.Connection
    backend: Backend
    cluster: Cluster | None


class LockWait(NamedTuple):
    """Sessions that wait for the notification lock, of all databases, and for how long the first has waited."""

    sessions: int = 0
    seconds: float = 0.0


class QueryTimeout(psycopg.OperationalError):
    """A query was not answered in time."""


class Inspection(NamedTuple):
    """What another session sees of one that does not answer."""

    is_at_work: bool  # it waits for a lock or a standby, or runs; else its answer is lost, or the backend is gone
    lock_wait: LockWait


def open_session(conninfo: str, replaced: Backend | None = None) -> OpenSession:
    """Connect, end the session that this one replaces, and find out where it leads.

    Args:
        conninfo: for psycopg, such as `app.core.postgres.listening_conninfo` returns.
        replaced: a former session's backend. It is ended, so that PostgreSQL never shows two of one process.

    Raises:
        psycopg.Error: the server can't be reached, refuses, or does not answer in time.
        OperatorError: there is a pooler in between.
    """
    connection = connect(conninfo)
    try:
        pgconn = connection.pgconn
        if own := own_encoding_sql(pgconn):
            query(pgconn, own)
        if replaced:
            query(pgconn, _TERMINATE.format(**replaced._asdict()))
        [[pid, started, _]] = query(pgconn, _BACKEND)
        backend = Backend(int(pid or 0), int(started or 0))
        check_direct(pgconn, backend.pid)
        return OpenSession(connection, backend, _cluster(pgconn))
    except BaseException:
        connection.close()
        raise


def _cluster(pgconn: pq.abc.PGconn) -> Cluster | None:
    try:
        [[identifier, timeline]] = query(pgconn, _CLUSTER)
    except _NO_IDENTITY:
        return None
    return Cluster(int(identifier or 0), int(timeline or 0))


def inspect(conninfo: str, backend: Backend) -> Inspection:
    """Look at a session's backend over a second connection.

    Raises:
        psycopg.Error: the second connection fails, so nothing is known.
    """
    second = libpq.make_conninfo(conninfo, application_name="notifymux-inspect", connect_timeout=2)
    with closing(connect(second)) as connection:
        sql = _INSPECTION.format(**backend._asdict(), lock_wait=_LOCK_WAIT)
        [[is_at_work, sessions, seconds]] = query(connection.pgconn, sql, _INSPECTION_TIMEOUT_SECONDS)
    return Inspection(is_at_work == b"t", LockWait(int(sessions or 0), float(seconds or 0)))


def lock_wait(pgconn: pq.abc.PGconn) -> LockWait:
    """Return which sessions wait for the notification lock.

    Raises:
        psycopg.Error: the query failed, or was not answered in time.
    """
    [[sessions, seconds]] = query(pgconn, f"SELECT {_LOCK_WAIT}")
    return LockWait(int(sessions or 0), float(seconds or 0))


def connect(conninfo: str) -> psycopg.Connection:
    """Connect in autocommit mode.

    `target_session_attrs=read-write` refuses a primary on which the role has default_transaction_read_only: LISTEN and
    NOTIFY work there, so such a server is asked for again as a primary.

    Raises:
        psycopg.Error: no server of `conninfo` can be reached, or all refuse.
    """
    try:
        return psycopg.connect(conninfo, autocommit=True)
    except psycopg.OperationalError as error:
        if "session is read-only" not in str(error):
            raise
    return psycopg.connect(libpq.make_conninfo(conninfo, target_session_attrs="primary"), autocommit=True)


def connected_url(url: str, connection: psycopg.Connection) -> str:
    """Return a connection string with the one host that a connection leads to."""
    return libpq.make_conninfo(url, host=connection.info.host, port=connection.info.port)


def is_answer(error: BaseException) -> bool:
    """Return whether a server has answered, if only to refuse."""
    return bool(getattr(error, "sqlstate", None) or _ANSWERED.search(str(error)))


def retry_delay(state: ReconnectState, error: SessionError) -> float:
    """Record that a session was lost, or could not be opened; return the seconds until the next try.

    A server that answers, and refuses, is tried once a second; one that does not answer less often, as `state` says.
    """
    match error:
        case psycopg.Error():
            return state.failed(with_remedy(error), _ANSWERED_RETRY_SECONDS if is_answer(error) else None)
        case OperatorError():
            return state.failed(error, _ANSWERED_RETRY_SECONDS)
        case _:
            return state.failed(error)


def query(pgconn: pq.abc.PGconn, sql: str, timeout: float = _QUERY_TIMEOUT_SECONDS) -> list[list[bytes | None]]:
    """Send one simple query and return the rows of its last statement, as text.

    Raises:
        psycopg.Error: it failed.
        QueryTimeout: it was not answered within `timeout` seconds. The connection is of no use any longer.
    """
    rows: list[list[bytes | None]] = []
    for result in _results(pgconn, sql, timeout):
        if result.status in _COPY:
            raise psycopg.NotSupportedError("COPY gives no rows")
        columns = range(result.nfields)
        rows = [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]
    return rows


def start_replication(pgconn: pq.abc.PGconn, command: str, timeout: float = _QUERY_TIMEOUT_SECONDS) -> None:
    """Send a command of the replication protocol that starts the streaming of both sides.

    Raises:
        psycopg.Error: it failed, or was not answered in time.
    """
    for result in _results(pgconn, command, timeout):
        if result.status == pq.ExecStatus.COPY_BOTH:
            return
    raise psycopg.NotSupportedError("the server does not stream")


def _results(pgconn: pq.abc.PGconn, sql: str, timeout: float) -> Iterator[pq.abc.PGresult]:
    deadline = time.monotonic() + timeout
    pgconn.nonblocking = 1
    pgconn.send_query(encode(pgconn, sql))
    while True:
        unsent = pgconn.flush()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                return
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise error_from_result(result, client_codec(pgconn))
            yield result
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN | (select.POLLOUT if unsent else 0))
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise QueryTimeout(f"a query was not answered within {timeout:g} s")
        pgconn.consume_input()
