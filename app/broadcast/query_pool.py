"""The team's own SQL queries, run on a few connections.

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
from app.core.query_connection import Parameters, QueryConnection
from app.core.query_files import QueryFile
from app.core.settings_sources import SettingsError
from notifymux.background_call import in_background
from notifymux.event import NULL, payload_json
from notifymux.reconnect import one_line

logger = logging.getLogger(__name__)

_MAX_IDLE_SECONDS = 5.0  # then an unused connection is closed
_RETRY_SECONDS = 0.5  # between two tries to connect
_CLOSE_TIMEOUT_SECONDS = 1.0
_MAX_LOGGED_ID = 100  # characters
_QUERY = "the query"  # the last step of an attempt

Attempt = asyncio.Future[tuple[QueryConnection, bytes | None]]


class QueryResult(NamedTuple):
    """A result as JSON, `null` without one; `error` says to clients that the query failed, `cause` why, as SQLSTATE."""

    data: bytes
    error: str | None = None
    cause: str = ""
    is_outage: bool = False  # whether it failed before PostgreSQL had the query


class QueryPool:
    """Runs queries on a few connections, which are closed when nobody uses them.

    Args:
        url: returns PostgreSQL's connection string. It is called in a thread before every connect.
        connections: the most that may be open at once.
        timeout: seconds that a query may take, with the wait for a connection.
        name: `application_name` of the sessions.
        failure: what clients are told of a query that failed.
    """

    def __init__(self, url: Callable[[], str], connections: int, timeout: float, name: str, failure: str) -> None:
        self._url, self._timeout, self._name, self._failure = url, timeout, name, failure
        self._slots = asyncio.Semaphore(connections)
        self._running: set[Attempt] = set()
        self._idle: dict[QueryConnection, asyncio.TimerHandle] = {}
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

    async def run(self, query: QueryFile, parameters: Parameters, within: float | None = None) -> QueryResult:
        """Return the result of a query. A failure is logged; the result's `error` has no details of it.

        Args:
            query: returns one JSON value.
            parameters: by name, those that the query has and possibly others.
            within: seconds, if it has less time than others.
        """
        timeout = self._timeout if within is None else min(within, self._timeout)
        self.queries += 1
        progress = _Progress(time.monotonic() + timeout)
        try:
            async with asyncio.timeout(timeout):
                value = await self._value(query.sql, parameters, progress)
        except TimeoutError:
            reason = progress.failure or f"{progress.step} takes longer than {timeout:.3g} s"
            return self._failed(query, parameters, progress, progress.step, reason)
        except (psycopg.Error, OSError, SettingsError) as error:
            return self._failed(query, parameters, progress, _cause(error), _explained(error))
        return QueryResult(NULL if value is None else payload_json(value))

    def _failed(
        self, query: QueryFile, parameters: Parameters, progress: "_Progress", cause: str, reason: str
    ) -> QueryResult:
        self.failures += 1
        name, topic = query.key.removesuffix("_id"), (parameters.get(query.key) or "")[:_MAX_LOGGED_ID]
        self._log(f"{query.name} {cause}", "the %s of %s %s failed: %s", query.label, name, topic, reason)
        return QueryResult(NULL, self._failure, cause, is_outage=progress.step != _QUERY)

    async def _value(self, sql: bytes, parameters: Parameters, progress: "_Progress") -> bytes | None:
        await self._slots.acquire()
        idle = self._take_idle()
        attempt = in_background(partial(self._attempt, sql, parameters, idle, progress))
        self._running.add(attempt)
        attempt.add_done_callback(self._put_back)
        # The thread has its connection until it ends, also when nobody waits for it any longer.
        _, value = await asyncio.shield(attempt)
        return value

    def _attempt(
        self, sql: bytes, parameters: Parameters, idle: QueryConnection | None, progress: "_Progress"
    ) -> tuple[QueryConnection, bytes | None]:
        """Run the query in a thread."""
        if idle and not idle.is_usable():
            idle.close()
            idle = None
        connection = idle or self._connect(progress)
        progress.step = _QUERY
        try:
            return connection, connection.value(sql, parameters, progress.left)
        except BaseException:  # whatever it is: nobody else has the connection
            connection.close()
            raise

    def _connect(self, progress: "_Progress") -> QueryConnection:
        progress.step = "connecting to PostgreSQL"
        while True:
            try:
                return QueryConnection.open(self._url(), self._name, self._timeout)
            except (psycopg.Error, OSError, SettingsError) as error:
                progress.failure = _explained(error)
                if progress.left <= _RETRY_SECONDS:
                    raise
            time.sleep(_RETRY_SECONDS)

    def _take_idle(self) -> QueryConnection | None:
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

    def _close_idle(self, connection: QueryConnection) -> None:
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
