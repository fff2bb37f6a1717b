"""`python -m listener install` and `uninstall`: the schema `notifymux` in the database of the settings."""

import sys
import time
from contextlib import closing
from typing import NamedTuple

import psycopg
from psycopg import conninfo as libpq

from app.core.operator_errors import OperatorError, with_remedy
from app.core.postgres import CONNECT_TIMEOUT_SECONDS, describe, with_options
from app.core.postgres_connect import connect, connected_url
from app.core.schema.script import LOCK
from notifymux.reconnect import one_line

_EXISTS = "SELECT to_regprocedure('notifymux.installed()') IS NOT NULL"
_INSTALLED = "SELECT version, source FROM notifymux.installed()"
# Transactions that are open, with those that have no xid yet: who only notifies gets one when it commits.
_OPEN = """
SELECT virtualtransaction, pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'virtualxid' AND datname = current_database() AND pid <> pg_backend_pid()
"""
_OLDER_SECONDS, _POLL_SECONDS = 10.0, 0.1
_OTHERWISE = "grant it to DB_USER, or let a role that may run what `python -m listener sql` prints"


class Installed(NamedTuple):
    """What there is of the schema; `source` is the way of an event."""

    version: int
    source: str

    def __str__(self) -> str:
        return f"version {self.version} for SOURCE={self.source}"


class Applied(NamedTuple):
    """What a script has changed where."""

    where: str
    before: Installed | None
    after: Installed | None

    def __str__(self) -> str:
        if self.before == self.after:
            return f"{self.where}: schema notifymux: {self.after or 'none'}, as before"
        return f"{self.where}: schema notifymux: {self.before or 'none'} -> {self.after or 'none'}"


def in_transaction(script: str) -> str:
    """Return a script with what makes it one transaction, for psql."""
    return f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\n{script}COMMIT;\n"


def apply(url: str, script: str, *, dry_run: bool) -> Applied:
    """Run a script of `app.core.schema` in one transaction; a dry run does so too, and rolls it back.

    Where it changes the way of an event, wait for the transactions that were open, which may have sent by the old way.

    Args:
        url: PostgreSQL's connection string.
        script: what to run.
        dry_run: whether nothing is to be changed.

    Raises:
        OperatorError: PostgreSQL can't be reached, or refuses; nothing has changed.
    """
    conninfo = libpq.make_conninfo(
        url,
        application_name="notifymux-install",
        client_encoding="UTF8",
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        options=with_options(url, {"search_path": "pg_catalog", "lock_timeout": "10s"}),
    )
    try:
        with closing(connect(conninfo)) as connection:
            connection.add_notice_handler(_warn)
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.read_only = False
            with connection.transaction(force_rollback=dry_run):
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])  # the script's own: so `before` is true
                before = _installed(connection)
                connection.execute(script.encode())
                after = _installed(connection)
            if before and after and before.source != after.source and not dry_run:
                _wait_for_older(connection, before.source)
            return Applied(describe(connected_url(url, connection)), before, after)
    except psycopg.Error as error:
        raise _explained(error) from None


def _wait_for_older(connection: psycopg.Connection, source: str) -> None:
    """Wait until the transactions have ended that were open when the script was committed; say which stay open."""
    older: dict[str, int] = dict(connection.execute(_OPEN).fetchall())
    deadline = time.monotonic() + _OLDER_SECONDS
    while older and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        still_open: dict[str, int] = dict(connection.execute(_OPEN).fetchall())
        older = {transaction: pid for transaction, pid in older.items() if transaction in still_open}
    if older:
        pids = ", ".join(map(str, sorted(older.values())))
        sys.stderr.write(
            f"notifymux: transactions that began before may still send by SOURCE={source} (pid {pids}): "
            "restart the listeners when these have ended\n"
        )


def _warn(diagnostic: psycopg.errors.Diagnostic) -> None:
    if diagnostic.severity_nonlocalized == "WARNING":
        sys.stderr.write(f"notifymux: {one_line(diagnostic.message_primary or '')}\n")


def _installed(connection: psycopg.Connection) -> Installed | None:
    if connection.execute(_EXISTS).fetchone() != (True,):
        return None
    [row] = connection.execute(_INSTALLED).fetchall()
    return Installed(*row)


def _explained(error: psycopg.Error) -> OperatorError:
    known = with_remedy(error)
    if error.sqlstate == "42501":
        return OperatorError(f"PostgreSQL forbids it: {one_line(error)}", _OTHERWISE)
    if isinstance(known, OperatorError):
        return known
    return OperatorError(one_line(error.diag.message_primary or error))
