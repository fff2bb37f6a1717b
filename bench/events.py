"""The events of the benchmarks: about 230 bytes of JSON each, with a serial number that every server passes on."""

import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Self

import psycopg

CHANNEL = "match_change"
MATCH = "41"

_ID = '{"match_id": '
_BEFORE = (
    ', "operation": "UPDATE", "data": {"id": 41, "home_score": 14, "away_score": 21, "quarter": 3,'
    ' "down": 2, "distance": 7, "yard_line": 38, "possession": "home", "status": "live", "serial": "#'
)
_AFTER = '#", "updated_at": "2026-09-13T19:05:12.345678+00:00"}}'
_DIGITS = 8

SERIAL = re.compile(rb"#(\d{8})#")


def serial_marker(serial: int) -> bytes:
    """Return the serial as it appears in an event, independently of how a server formats the JSON."""
    return b"#%08d#" % serial


def payload(serial: int) -> str:
    """Return the payload of an event."""
    return f"{_ID}{MATCH}{_BEFORE}{serial:0{_DIGITS}}{_AFTER}"


class Way(NamedTuple):
    """How a session sends events.

    Args:
        call: of the SQL function, with `%s` for the payload.
        synchronous_commit: whether its commits wait for the disk: `on` or `off`.
        change: what each transaction does first: statements that end with a semicolon.
    """

    call: str
    synchronous_commit: str = "off"
    change: str = ""


NOTIFY = Way(f"pg_notify('{CHANNEL}', %s)")
# PostgreSQL does not flush a commit that has only notified: it has to change a row as well.
CHANGED_TABLE = "CREATE TABLE changed (times int); INSERT INTO changed VALUES (0)"
_CHANGE = "UPDATE changed SET times = times + 1;"
NOTIFY_WITH_A_ROW = Way(NOTIFY.call, "on", _CHANGE)
EMIT_WITH_A_ROW = Way(f"pg_logical_emit_message(true, 'notifymux:{CHANNEL}', %s)", "on", _CHANGE)


def _flood_sql(way: Way, first: int, events: int, batch: int, matches: int) -> str:
    """A loop in the server, which uses less CPU time than a client that sends each statement."""
    serial = f"({first} + n * {batch} + i)"
    number = f"lpad({serial}::text, {_DIGITS}, '0')"
    content = f"'{_ID}' || {MATCH} + {serial} % {matches} || '{_BEFORE}' || {number} || '{_AFTER}'"
    return f"""
        DO $$ BEGIN
            FOR n IN 0..{events // batch - 1} LOOP
                {way.change}
                PERFORM {way.call % content} FROM generate_series(0, {batch - 1}) i;
                COMMIT;
            END LOOP;
        END $$
    """


class Emitter:
    """A session that sends events.

    By default its commits don't wait for the disk, so that only the delivery of notifications is measured.

    Args:
        conninfo: of the database.
        way: how it sends them.
        matches: of which the events are in turn; `MATCH` is the first one, and their ids follow each other.
    """

    def __init__(self, conninfo: str, way: Way = NOTIFY, matches: int = 1) -> None:
        self._way, self._matches = way, matches
        self._connection = _connect(conninfo, way)
        self.last = 0  # serial

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def once(self, events: int = 1) -> float:
        """Send events in one transaction; return the time just before it."""
        began = time.time()
        self._flood(events, events)
        return began

    @contextmanager
    def flood(self, events: int, batch: int) -> Iterator[float]:
        """Send events as fast as PostgreSQL can while the block runs, `batch` per transaction; yield the start time."""
        thread = threading.Thread(target=self._flood, args=(events, batch))
        began = time.time()
        thread.start()
        try:
            yield began
        finally:
            thread.join()

    def _flood(self, events: int, batch: int) -> None:
        statement = _flood_sql(self._way, self.last + 1, events, batch, self._matches)
        self.last += events
        self._connection.execute(statement.encode())


@contextmanager
def paced(conninfo: str, first: int, events: int, rate: float, way: Way = NOTIFY) -> Iterator[Any]:
    """Send events at a steady rate from another process while the block runs.

    Call the result to wait for the end, and to get the time of each event: Unix seconds, just before the statement was
    sent.
    """
    context = get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_pace, args=(sending, conninfo, first, events, rate, way), daemon=True)
    process.start()
    try:
        receiving.recv()  # until it is connected
        yield receiving.recv
    finally:
        process.join(30)
        process.kill()
        receiving.close()


def _pace(done: Connection, conninfo: str, first: int, events: int, rate: float, way: Way) -> None:  # noqa: PLR0917 - a process's
    with closing(_connect(conninfo, way)) as connection:
        times = []
        done.send("connected")
        due = time.monotonic() + 0.05
        for serial in range(first, first + events):
            statement = f"{way.change} SELECT {way.call}".replace("%s", f"'{payload(serial)}'").encode()
            time.sleep(max(0.0, due - time.monotonic()))
            times.append(time.time())
            connection.pgconn.exec_(statement)
            # Irregular intervals, so that no timer runs in step with the events. A larger delay is not made up for.
            due = max(due + random.uniform(0.5, 1.5) / rate, time.monotonic() - 0.1)
        done.send(times)


def _connect(conninfo: str, way: Way) -> psycopg.Connection:
    options = f"-c synchronous_commit={way.synchronous_commit}"
    return psycopg.connect(conninfo, autocommit=True, options=options)
