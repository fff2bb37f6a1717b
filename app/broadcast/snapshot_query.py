"""The state of a match: whatever the configured SQL query returns for it.

Each query runs in a thread, from the look-up of the host's name on: that blocks, and so does a server that is frozen.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import psycopg

from app.core.log_throttle import LogThrottle
from app.core.operator_errors import with_remedy
from app.core.settings_sources import SettingsError
from app.core.snapshot_connection import SnapshotConnection
from notifymux.background_call import in_background
from notifymux.event import NULL, payload_json
from notifymux.reconnect import one_line

logger = logging.getLogger(__name__)

_MAX_IDLE_SECONDS = 5.0  # then an unused connection is closed
_RETRY_SECONDS = 0.5  # between two tries to connect
_CLOSE_TIMEOUT_SECONDS = 1.0
_MAX_LOGGED_ID = 100  # characters
_QUERY = "the query"  # the last step of an attempt
_FAILURE = "the snapshot could not be taken; updates follow"

Attempt = asyncio.Future[tuple[SnapshotConnection, bytes | None]]


class Snapshot(NamedTuple):
    """A snapshot as JSON, `null` without one; `error` says to clients why the query failed."""

    data: bytes
    error: str | None = None
    is_outage: bool = False  # whether it failed before PostgreSQL had the query


class SnapshotQuery:
    """Runs the query on a few connections, which are closed when nobody uses them.

    Args:
        url: returns PostgreSQL's connection string. It is called in a thread before every connect.
        query: SQL with `%(match_id)s` that returns one JSON value.
        connections: the most that may be open at once.
        timeout: seconds that a query may take, with the wait for a connection.
        name: `application_name` of the sessions.
    """

    def __init__(self, url: Callable[[], str], query: str, connections: int, timeout: float, name: str) -> None:
        self._url, self._query, self._timeout, self._name = url, query.encode(), timeout, name
        self._slots = asyncio.Semaphore(connections)
        self._running: set[Attempt] = set()
        self._idle: dict[SnapshotConnection, asyncio.TimerHandle] = {}
        self._is_closed = False
        self._log = LogThrottle(logger)
        self.queries = self.failures = 0

    async def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        while self._idle:
            self._close_idle(next(iter(self._idle)))
        if self._running:
            await asyncio.wait(self._running, timeout=_CLOSE_TIMEOUT_SECONDS)

    async def run(self, match: str) -> Snapshot:
        """Return the snapshot of a match. A failure is logged; the snapshot's `error` has no details of it."""
        self.queries += 1
        progress = _Progress(time.monotonic() + self._timeout)
        try:
            async with asyncio.timeout(self._timeout):
                value = await self._value(match, progress)
        except TimeoutError:
            reason = progress.failure or f"{progress.step} takes longer than {self._timeout:g} s"
            return self._failed(match, progress, progress.step, reason)
        except (psycopg.Error, OSError, SettingsError) as error:
            return self._failed(match, progress, _cause(error), _explained(error))
        return Snapshot(NULL if value is None else payload_json(value))

    def _failed(self, match: str, progress: "_Progress", cause: str, reason: str) -> Snapshot:
        self.failures += 1
        self._log(cause, "the snapshot of match %s failed: %s", match[:_MAX_LOGGED_ID], reason)
        return Snapshot(NULL, _FAILURE, is_outage=progress.step != _QUERY)

    async def _value(self, match: str, progress: "_Progress") -> bytes | None:
        await self._slots.acquire()
        idle = self._take_idle()
        attempt = in_background(partial(self._attempt, match, idle, progress))
        self._running.add(attempt)
        attempt.add_done_callback(self._put_back)
        # The thread has its connection until it ends, also when nobody waits for it any longer.
        _, value = await asyncio.shield(attempt)
        return value

    def _attempt(
        self, match: str, idle: SnapshotConnection | None, progress: "_Progress"
    ) -> tuple[SnapshotConnection, bytes | None]:
        """Run the query in a thread."""
        if idle and not idle.is_usable():
            idle.close()
            idle = None
        connection = idle or self._connect(progress)
        progress.step = _QUERY
        try:
            return connection, connection.value(self._query, match, progress.left)
        except BaseException:  # whatever it is: nobody else has the connection
            connection.close()
            raise

    def _connect(self, progress: "_Progress") -> SnapshotConnection:
        progress.step = "connecting to PostgreSQL"
        while True:
            try:
                return SnapshotConnection.open(self._url(), self._name, self._timeout)
            except (psycopg.Error, OSError, SettingsError) as error:
                progress.failure = _explained(error)
                if progress.left <= _RETRY_SECONDS:
                    raise
            time.sleep(_RETRY_SECONDS)

    def _take_idle(self) -> SnapshotConnection | None:
        if not self._idle:
            return None
        connection, timer = self._idle.popitem()
        timer.cancel()
        return connection

    def _put_back(self, attempt: Attempt) -> None:
        self._running.discard(attempt)
        self._slots.release()
        if attempt.exception():
            return
        connection, _ = attempt.result()
        timer = asyncio.get_running_loop().call_later(_MAX_IDLE_SECONDS, self._close_idle, connection)
        self._idle[connection] = timer
        if self._is_closed:
            self._close_idle(connection)

    def _close_idle(self, connection: SnapshotConnection) -> None:
        self._idle.pop(connection).cancel()
        connection.close()


class _Progress:
    """How far an attempt is: which step it is at, and why connecting failed last. `deadline` is monotonic seconds."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self.step = "the wait for one of SNAPSHOT_POOL connections"
        self.failure: str | None = None

    @property
    def left(self) -> float:
        """Seconds until the deadline; at least 0."""
        return max(0.0, self._deadline - time.monotonic())


def _cause(error: Exception) -> str:
    return getattr(error, "sqlstate", None) or type(error).__name__


def _explained(error: Exception) -> str:
    """Return why a query failed. What PostgreSQL quotes of it is left out: it has the match id in it once more."""
    if not isinstance(error, psycopg.Error):
        return one_line(error)
    known = with_remedy(error)
    if known is not error or error.diag.message_primary is None:
        return one_line(known)
    hint = error.diag.message_hint
    return one_line(error.diag.message_primary + (f"; {hint}" if hint else ""))
