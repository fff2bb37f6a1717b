"""Errors that only an operator can fix, and how to recognise them among PostgreSQL's messages.

`notifymux.redis_errors` does the same for Redis's.
"""

import re

import psycopg
from psycopg import pq

from notifymux.reconnect import one_line

# libpq gives no SQLSTATE for a refused connection, so classes 28 (authorization) and 3D (no such database) are
# recognised by the texts of PostgreSQL and PgBouncer.
_REFUSED = re.compile(
    r"authentication failed|no pg_hba\.conf entry|pg_hba\.conf rejects|no password supplied"
    r'|role "[^"]*" (does not exist|is not permitted to log in)|permission denied for database'
    r'|database "[^"]*" (does not exist|is not currently accepting connections)|no such (user|database)'
)
_POOLER = re.compile(r"unsupported startup parameter")
_STANDBY = re.compile(r"session is read-only|server is in hot standby mode")
_FULL = re.compile(r"too many (clients|connections)|remaining connection slots|no more connections allowed")
_LIMIT = re.compile(r"too many connections for (role|database)")
_REPLICATION = re.compile(
    r"permission denied to (start WAL sender|use replication slots)|superuser or replication role"
)
_SENDERS = re.compile(r'exceeds "?max_wal_senders"?')
_SLOTS = re.compile(r"all replication slots are in use")
MAY_REPLICATE = "give DB_USER the right: ALTER ROLE … REPLICATION"
MAKE_SLOT_ROOM = (
    "raise max_replication_slots or max_wal_senders and restart PostgreSQL, or drop what nobody needs: "
    "SELECT slot_name, active FROM pg_replication_slots"
)
_RAISE_LIMIT = "raise the CONNECTION LIMIT of the role, or of the database"
MAKE_ROOM = (
    "raise max_connections, or end what nobody needs: "
    "SELECT application_name, count(*) FROM pg_stat_activity GROUP BY 1"
)
PAST_POOLER = "LISTEN needs PostgreSQL itself: set DB_HOST and DB_PORT past the pooler"
_TO_PRIMARY = "LISTEN needs the primary: set DB_HOST and DB_PORT to it"


class OperatorError(Exception):
    """An error that only an operator can fix; its message is one line with the fault and the remedy.

    Args:
        what: the fault.
        remedy: what to do about it; may be empty if `what` says so already.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what, self.remedy = what, remedy


def with_remedy(error: psycopg.Error) -> psycopg.Error | OperatorError:
    """Return a PostgreSQL error with what an operator can do about it, or the error itself where that is not known.

    It is an outage all the same: what a server refuses now it may grant later.
    """
    text = one_line(error)
    if (error.sqlstate or "")[:2] in {"28", "3D"} or _REFUSED.search(text):
        return OperatorError(
            f"PostgreSQL refuses this login: {text}", "check DB_HOST, DB_USER, DB_PASSWORD and DB_NAME"
        )
    if _POOLER.search(text):
        return OperatorError(f"DB_HOST leads to a connection pooler: {text}", PAST_POOLER)
    if error.sqlstate == "25006" or _STANDBY.search(text):
        return OperatorError(f"DB_HOST leads to a read-only standby: {text}", _TO_PRIMARY)
    if _FULL.search(text):
        return OperatorError(f"no connection is left: {text}", _RAISE_LIMIT if _LIMIT.search(text) else MAKE_ROOM)
    of_replication = _of_replication(text)
    if error.sqlstate == "42501" and not of_replication:
        return OperatorError(f"PostgreSQL forbids it: {text}", "grant it to DB_USER")
    return of_replication or error


def _of_replication(text: str) -> OperatorError | None:
    if _SENDERS.search(text) or _SLOTS.search(text):
        return OperatorError(f"no replication slot, or connection for one, is left: {text}", MAKE_SLOT_ROOM)
    if _REPLICATION.search(text):
        return OperatorError(f"PostgreSQL forbids it: {text}", MAY_REPLICATE)
    return None


def check_direct(pgconn: pq.abc.PGconn, backend_pid: int | None) -> None:
    """Compare the backend that accepted the connection with `backend_pid`, the backend that answers queries.

    Raises:
        OperatorError: they differ, so there is a pooler in between. It lends the backend to other clients between two
            queries, and notifications that arrive meanwhile are lost.
    """
    if pgconn.backend_pid != backend_pid:
        raise OperatorError("DB_HOST leads to a connection pooler", PAST_POOLER)
