"""The check of SNAPSHOT_QUERY: it is run as a worker runs it, for one match."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg

from app.core.config import Settings
from app.core.operator_errors import OperatorError, with_remedy
from app.core.postgres_connect import QueryTimeout
from app.core.snapshot_connection import SnapshotConnection
from listener.verify.result import Check, failed, passed, warned
from notifymux.event import payload_json
from notifymux.reconnect import one_line

_NAME = "snapshot query"
_MADE_UP_MATCH = "0"  # which columns of text and of numbers take
_SLOW = 0.5  # of SNAPSHOT_TIMEOUT
_CANCELED = "57014"
# The parameter's type can't be found out, or no function or operator takes it as it is.
_UNTYPED = {"42P18", "42804", "42725", "42883", "42P38"}
_DATA_ERROR = "22"  # the class of errors such as a text that is no number


def run_checks(settings: Settings, url: str, match: str | None) -> Iterator[Check]:
    """Run SNAPSHOT_QUERY, if there is one, for a match, or else for one that is made up."""
    if settings.snapshot_query is None:
        return
    name, timeout = f"notifymux-verify/{settings.pod_name}", settings.snapshot_timeout
    try:
        with closing(SnapshotConnection.open(url, name, timeout)) as connection:
            yield _checked(connection, settings.snapshot_query.encode(), match, timeout)
    except psycopg.Error as error:
        yield _failed(error, match, timeout)


def _checked(connection: SnapshotConnection, sql: bytes, match: str | None, timeout: float) -> Check:
    asked = _MADE_UP_MATCH if match is None else match
    value, seconds = _timed(lambda: connection.value(sql, asked, timeout))
    rows = connection.rows(sql, asked, timeout)
    columns = len(rows[0]) if rows else 0
    took = f"{1000 * seconds:.0f} ms for match {asked!r}"
    if not rows or value is None:
        found = "no row" if not rows else "NULL"
        text = f"{found} in {took}: clients of such a match start with null"
        if match is None:
            return passed(_NAME, f"{text}. It is made up: --match ID takes one of yours")
        return warned(_NAME, text, "correct SNAPSHOT_QUERY, unless there is no such match")
    text = f"{len(value)} bytes in {took}"
    if columns > 1 or len(rows) > 1:
        return warned(
            _NAME,
            f"{text}; it returns {len(rows)} rows of {columns} columns, and clients get the first value only",
            "have SNAPSHOT_QUERY return one value: SELECT json_build_object(…), json_agg(…) or row_to_json(…)",
        )
    if payload_json(value).startswith(b'"') and not value.lstrip().startswith(b'"'):
        return warned(
            _NAME,
            f"{text}; it is not JSON, and clients get it as a string",
            "have SNAPSHOT_QUERY return JSON: to_json(…), row_to_json(…)",
        )
    if seconds > _SLOW * timeout:
        return warned(
            _NAME,
            f"{text}, of the {timeout:g} s of SNAPSHOT_TIMEOUT",
            "make it faster, with an index for one; or raise SNAPSHOT_TIMEOUT",
        )
    return passed(_NAME, text)


def _failed(error: psycopg.Error, match: str | None, timeout: float) -> Check:
    known, text = with_remedy(error), one_line(error)
    if isinstance(error, QueryTimeout) or error.sqlstate == _CANCELED:
        return failed(
            _NAME,
            f"it takes longer than the {timeout:g} s of SNAPSHOT_TIMEOUT",
            "make it faster, with an index for one; or raise SNAPSHOT_TIMEOUT",
        )
    if isinstance(known, OperatorError):
        return failed(_NAME, known.what, known.remedy)
    if error.sqlstate in _UNTYPED:
        return failed(_NAME, text, "give the parameter a type in SNAPSHOT_QUERY: %(match_id)s::text, or ::int")
    if (error.sqlstate or "").startswith(_DATA_ERROR):
        if match is None:
            return warned(
                _NAME, f"not tried: match {_MADE_UP_MATCH!r}, which is made up, does not fit: {text}", "--match ID"
            )
        return failed(_NAME, text, "give --match an id of the type that SNAPSHOT_QUERY compares it with, or correct it")
    return failed(_NAME, text, "correct SNAPSHOT_QUERY; a % of its own is written %%")


def _timed(call: Callable[[], bytes | None]) -> tuple[bytes | None, float]:
    started = time.monotonic()
    return call(), time.monotonic() - started
