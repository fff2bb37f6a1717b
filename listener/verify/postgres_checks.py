"""The checks of PostgreSQL."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import psycopg

from app.core.operator_errors import MAKE_ROOM, OperatorError, with_remedy
from app.core.postgres import describe, listening_conninfo, literal
from app.core.postgres_connect import QueryTimeout, connected_url, lock_wait, open_session, query
from app.core.session_health import describe as describe_wait
from app.core.text_encoding import client_codec
from listener.verify.result import Check, failed, passed, warned
from notifymux.reconnect import one_line

_OLDEST_MAJOR = 14
QUERY_TIMEOUT_SECONDS = 5.0
_LOCK_WARNING_SECONDS = 1.0  # that the first session has waited; shorter waits are what a busy server has
_MAKE_COMMITS_GO_ON = (
    "a commit hangs: a synchronous standby is away (synchronous_standby_names), or the disk is slow or full: "
    "SELECT pid, wait_event, query FROM pg_stat_activity WHERE wait_event_type IN ('IPC', 'IO')"
)
_WHY_SLOW = "it is frozen or overloaded, or commits wait: see the check of the notification lock, or the server's log"
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
      AND (p.prosrc ~ {} OR strpos(pg_get_triggerdef(t.oid), {}) > 0) AND {}
    ORDER BY 1
"""


def connect(url: str, pod: str) -> tuple[Check, psycopg.Connection | None]:
    """Connect as the listener does; return the check, and the connection if LISTEN works on it."""
    try:
        connection = open_session(listening_conninfo(url, f"notifymux-verify/{pod}")).connection
    except (psycopg.Error, OperatorError) as error:
        check = failed_check("PostgreSQL", error)
        return check._replace(text=f"{describe(url)}: {check.text}"), None
    server = describe(connected_url(url, connection))
    return passed("PostgreSQL", f"{server}: the primary, reached directly"), connection


def failed_check(name: str, error: psycopg.Error | OperatorError) -> Check:
    """The failed check for an error."""
    if isinstance(error, QueryTimeout):
        return failed(name, one_line(error), _WHY_SLOW)
    known = with_remedy(error) if isinstance(error, psycopg.Error) else error
    if isinstance(known, OperatorError):
        return failed(name, known.what, known.remedy)
    return failed(name, one_line(error), "start it, or correct DB_HOST and DB_PORT; the listener goes on trying")


def run_checks(connection: psycopg.Connection, channels: Sequence[str], workers: int) -> Iterator[Check]:
    """Run every check on a connection of `connect`; `workers` are this pod's, 0 in PostgreSQL mode."""
    try:
        yield version(connection)
        yield notification_lock(connection)
        yield connections(connection, workers)
        yield sessions(connection, workers)
        yield queue(connection)
        yield from schema(connection, "notify")
        for channel in channels:
            yield triggers(connection, channel)
    except psycopg.Error as error:
        yield failed_check("PostgreSQL's answers", error)


def version(connection: psycopg.Connection) -> Check:
    """Whether the server is new enough."""
    name, text = "PostgreSQL version", f"PostgreSQL {connection.info.parameter_status('server_version')}"
    if connection.info.server_version < _OLDEST_MAJOR * 10_000:
        return failed(name, text, f"upgrade it: {_OLDEST_MAJOR} is the oldest that works")
    return passed(name, text)


def notification_lock(connection: psycopg.Connection) -> Check:
    """Whether sessions wait for the lock that a transaction which notifies holds over its commit."""
    name, wait = "notification lock", lock_wait(connection.pgconn)
    if wait.seconds < _LOCK_WARNING_SECONDS:
        return passed(name, f"{wait.sessions} sessions wait for it")
    return warned(name, describe_wait(wait), _MAKE_COMMITS_GO_ON)


def connections(connection: psycopg.Connection, workers: int) -> Check:
    """How many connections are used, and whether a rollback would find one for each of this pod's workers."""
    most, reserved, used = map(int, read_row(connection, _CONNECTIONS))
    name, text = "connections", f"{used} of {most - reserved} used (max_connections {most}, {reserved} reserved)"
    free = most - reserved - used
    if free < max(workers, 1):
        return warned(
            name,
            f"{text}: only {max(free, 0)} are left",
            f"a roll back takes one for each worker: {MAKE_ROOM}",
        )
    return passed(name, text)


def sessions(connection: psycopg.Connection, workers: int) -> Check:
    """How many sessions LISTEN in this database, by application_name."""
    name, found, hidden = "LISTEN sessions", Counter[str](), 0
    for application, text in read_rows(connection, _SESSIONS):
        if _LISTEN_QUERY.match(text) or re.match(r"notifymux-(listener|worker)/", application):
            found[application or "(no application_name)"] += 1
        else:
            hidden += text == _HIDDEN
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
    [text] = read_row(connection, "SELECT pg_notification_queue_usage()")
    usage = float(text)
    name, text = "notification queue", f"{100 * usage:.3g} % full"
    remedy = (
        "some session LISTENs and does not read, mostly one that is long in a transaction: "
        "SELECT pid, application_name, xact_start FROM pg_stat_activity ORDER BY xact_start"
    )
    if usage >= _QUEUE_FAILURE:
        return failed(name, f"{text}; full, it fails every transaction that notifies", remedy)
    return warned(name, text, remedy) if usage > _QUEUE_WARNING else passed(name, text)


def schema(connection: psycopg.Connection, source: str) -> Iterator[Check]:
    """Whether watched tables announce by the way that is heard; no check where the schema is not installed."""
    if read_row(connection, "SELECT to_regprocedure('notifymux.installed()') IS NULL") == ["t"]:
        return
    number, way = read_row(connection, "SELECT version, source FROM notifymux.installed()")
    name, text = "schema notifymux", f"version {number} for SOURCE={way}"
    if way == source:
        yield passed(name, text)
    else:
        text += f", and this is SOURCE={source}: no change of a watched table is heard"
        yield failed(name, text, "python -m listener install, or correct SOURCE")


def triggers(connection: psycopg.Connection, channel: str) -> Check:
    """Which tables' triggers notify on a channel."""
    name, tables = f"triggers {channel}", tables_with_trigger(connection, channel)
    if not tables:
        return warned(
            name,
            "no trigger names this channel",
            "fine if a program notifies on it, or a function that makes up the name; else see README, The trigger",
        )
    more = f" and {len(tables) - _MAX_TABLES_NAMED} more" if len(tables) > _MAX_TABLES_NAMED else ""
    return passed(name, f"on {', '.join(tables[:_MAX_TABLES_NAMED])}{more}")


def tables_with_trigger(connection: psycopg.Connection, channel: str, condition: str = "true") -> list[str]:
    """The tables with a trigger that names a channel; `condition` is SQL about its function `p`."""
    word = rf"(^|\W){re.escape(channel)}(\W|$)"
    quoted = "'" + channel.replace("'", "''") + "'"  # as pg_get_triggerdef() writes an argument
    sql = _TRIGGERS.format(literal(word), literal(quoted), condition)
    return [table for (table,) in read_rows(connection, sql)]


def read_row(connection: psycopg.Connection, sql: str) -> list[str]:
    """The only row of a query, as text."""
    [row] = read_rows(connection, sql)
    return row


def read_rows(connection: psycopg.Connection, sql: str) -> list[list[str]]:
    """The rows of a query, as text."""
    rows, codec = query(connection.pgconn, sql, QUERY_TIMEOUT_SECONDS), client_codec(connection.pgconn)
    return [[(value or b"").decode(codec, errors="replace") for value in row] for row in rows]
