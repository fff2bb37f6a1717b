"""The checks of PostgreSQL."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from app.core.operator_errors import OperatorError, check_direct, check_operator, check_primary
from app.core.postgres import describe, listening_conninfo
from listener.verify.result import Check, failed, passed, warned
from notifymux.reconnect import one_line

_OLDEST_MAJOR = 14
_IS_FULL = re.compile(r"too many (clients|connections)|remaining connection slots|no more connections allowed")
_MAKE_ROOM = (
    "raise max_connections, or end what nobody needs: "
    "SELECT application_name, count(*) FROM pg_stat_activity GROUP BY 1"
)
_QUEUE_WARNING = 0.01  # fraction; 1 % are some 80 MB
_QUEUE_FAILURE = 0.5  # fraction; from here on PostgreSQL warns in its own log
_HIDDEN = "<insufficient privilege>"
_LISTEN_QUERY = re.compile(r"\s*listen\s", re.IGNORECASE)
_MAX_TABLES_NAMED = 3  # in one line

_CONNECTIONS = """
    SELECT current_setting('max_connections')::int,
           current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0),
           (SELECT count(*) FROM pg_stat_activity
            WHERE usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend')
"""
_SESSIONS = """
    SELECT application_name, coalesce(query, '') FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
# A channel is named in a trigger's function as a word, or is one of the trigger's arguments.
_TRIGGERS = """
    SELECT DISTINCT t.tgrelid::regclass::text
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled <> 'D'
      AND (p.prosrc ~ %s OR strpos(pg_get_triggerdef(t.oid), %s) > 0)
    ORDER BY 1
"""


def connect(url: str, pod: str) -> tuple[Check, psycopg.Connection | None]:
    """Connect as the listener does; return the check, and the connection if LISTEN works on it."""
    connection: psycopg.Connection | None = None
    try:
        connection = psycopg.connect(listening_conninfo(url, f"notifymux-verify/{pod}"), autocommit=True)
        backend, is_in_recovery = _row(connection, "SELECT pg_backend_pid(), pg_is_in_recovery()")
        check_direct(connection.pgconn, backend)
        check_primary(is_in_recovery=is_in_recovery)
    except (psycopg.Error, OperatorError) as error:
        if connection:
            connection.close()
        check = failed_check("PostgreSQL", error)
        return check._replace(text=f"{describe(url)}: {check.text}"), None
    return passed("PostgreSQL", f"{describe(url)}: the primary, reached directly"), connection


def failed_check(name: str, error: psycopg.Error | OperatorError) -> Check:
    """The failed check for an error."""
    if isinstance(error, OperatorError):
        return failed(name, error.what, error.remedy)
    try:
        check_operator(error)
    except OperatorError as known:
        return failed(name, known.what, known.remedy)
    text = one_line(error)
    if _IS_FULL.search(text):
        return failed(name, f"no connection is left: {text}", _MAKE_ROOM)
    return failed(name, text, "start it, or correct DB_HOST and DB_PORT; the listener goes on trying")


def run_checks(connection: psycopg.Connection, channels: Sequence[str], workers: int) -> Iterator[Check]:
    """Run every check on a connection of `connect`; `workers` are this pod's, 0 in PostgreSQL mode."""
    try:
        yield version(connection)
        yield connections(connection, workers)
        yield sessions(connection, workers)
        yield queue(connection)
        for channel in channels:
            yield triggers(connection, channel)
    except psycopg.Error as error:
        yield failed_check("PostgreSQL", error)


def version(connection: psycopg.Connection) -> Check:
    """Whether the server is new enough."""
    name, text = "PostgreSQL version", f"PostgreSQL {connection.info.parameter_status('server_version')}"
    if connection.info.server_version < _OLDEST_MAJOR * 10_000:
        return failed(name, text, f"upgrade it: {_OLDEST_MAJOR} is the oldest that works")
    return passed(name, text)


def connections(connection: psycopg.Connection, workers: int) -> Check:
    """How many connections are used, and whether a rollback would find one for each of this pod's workers."""
    most, reserved, used = _row(connection, _CONNECTIONS)
    name, text = "connections", f"{used} of {most - reserved} used (max_connections {most}, {reserved} reserved)"
    free = most - reserved - used
    if free < max(workers, 1):
        return warned(
            name,
            f"{text}: only {max(free, 0)} are left",
            f"a roll back takes one for each worker: {_MAKE_ROOM}",
        )
    return passed(name, text)


def sessions(connection: psycopg.Connection, workers: int) -> Check:
    """How many sessions LISTEN in this database, by application_name."""
    name, found, hidden = "LISTEN sessions", Counter[str](), 0
    for application, query in connection.execute(_SESSIONS):
        if _LISTEN_QUERY.match(query) or re.match(r"notifymux-(listener|worker)/", application):
            found[application or "(no application_name)"] += 1
        else:
            hidden += query == _HIDDEN
    whose = ", ".join(f"{count} {who}" for who, count in sorted(found.items()))
    text = f"{found.total()} ({whose})" if whose else "0"
    if hidden:
        text += f"; {hidden} other sessions are not shown to this role (pg_monitor would see them)"
    if not any(application.startswith("notifymux-listener/") for application in found):
        return failed(name, f"{text}; none is a listener's", "supervisorctl status listener; its log says why")
    if workers and any(application.startswith("notifymux-worker/") for application in found):
        return warned(
            name, f"{text}; workers LISTEN directly", "supervisorctl restart app, where they should hear Redis"
        )
    return passed(name, text)


def queue(connection: psycopg.Connection) -> Check:
    """How full PostgreSQL's notification queue is; it keeps what the slowest session has not read."""
    [usage] = _row(connection, "SELECT pg_notification_queue_usage()")
    name, text = "notification queue", f"{100 * usage:.3g} % full"
    remedy = (
        "some session LISTENs and does not read, mostly one that is long in a transaction: "
        "SELECT pid, application_name, xact_start FROM pg_stat_activity ORDER BY xact_start"
    )
    if usage >= _QUEUE_FAILURE:
        return failed(name, f"{text}; full, it fails every transaction that notifies", remedy)
    return warned(name, text, remedy) if usage > _QUEUE_WARNING else passed(name, text)


def triggers(connection: psycopg.Connection, channel: str) -> Check:
    """Which tables' triggers notify on a channel."""
    name = f"triggers {channel}"
    word = rf"(^|\W){re.escape(channel)}(\W|$)"
    quoted = "'" + channel.replace("'", "''") + "'"  # as pg_get_triggerdef() writes an argument
    tables = [table for (table,) in connection.execute(_TRIGGERS, [word, quoted])]
    if not tables:
        return warned(
            name,
            "no trigger names this channel",
            "fine if a program notifies on it, or a function that makes up the name; else see README, The trigger",
        )
    more = f" and {len(tables) - _MAX_TABLES_NAMED} more" if len(tables) > _MAX_TABLES_NAMED else ""
    return passed(name, f"on {', '.join(tables[:_MAX_TABLES_NAMED])}{more}")


def _row(connection: psycopg.Connection, query: str) -> Any:
    [row] = connection.execute(query.encode()).fetchall()
    return row
