"""Whether a LISTEN session that does not answer is healthy.

Whoever notifies holds a lock of the whole cluster until its commit is flushed and its synchronous standby has
confirmed; every later NOTIFY queues behind it. A session whose canary waits there loses nothing, and to replace it
would lose what it is about to receive. So a session is judged by what its backend does, seen over a second connection,
and not by the time its answer takes.
"""

import logging
from collections.abc import Callable
from typing import Any

import psycopg

from app.core.operator_errors import PAST_POOLER, OperatorError
from app.core.postgres_connect import Inspection, LockWait, QueryTimeout, is_answer
from app.core.settings_sources import SettingsError
from notifymux.background_call import BackgroundCall
from notifymux.reconnect import one_line

PATIENCE_SECONDS = 2.0  # without an answer, before the backend is inspected
_INTERVAL_SECONDS = 1.0  # between two inspections
_DOUBTS = 2  # inspections in a row that find no reason to wait, until the session is replaced


class SessionHealth:
    """Watches one session.

    Args:
        inspect: looks at the session's backend. It may block: it is called in a thread.
        logger: receives a line when a stall begins and one when it ends.
        start_call: starts a call that may block, and returns at once.
    """

    def __init__(
        self, inspect: Callable[[], Inspection], logger: logging.Logger, start_call: Callable[..., Any] = BackgroundCall
    ) -> None:
        self._inspect, self._logger, self._start_call = inspect, logger, start_call
        self._inspection: Any = None  # of `start_call`
        self._is_outdated = False  # whether the session has delivered or answered since the inspection began
        self._doubts = 0  # inspections in a row that found no reason to wait
        self._unanswered_since: float | None = None
        self._due = 0.0
        self.problem: str | None = None  # why the session does not answer; None while it does
        self.is_unreachable = False  # it does not answer, and neither does the server to a second connection
        self.lock_wait = LockWait()

    def check(self, now: float, *, is_answered: bool, is_received: bool) -> None:
        """Judge the session; to be called regularly, after its notifications were read.

        Args:
            now: monotonic seconds.
            is_answered: every query of the session has been answered.
            is_received: every notification that the session sent has come back to it.

        Raises:
            psycopg.OperationalError: the session has to be replaced.
            OperatorError: the same, and there is a pooler in between.
        """
        if is_answered:
            self._answered()
            if not is_received:
                raise OperatorError(
                    "DB_HOST leads to a connection pooler: it answered a query, and did not deliver its notification",
                    PAST_POOLER,
                )
        elif self._unanswered_since is None:
            self._unanswered_since = now
        elif self._inspection:
            if self._inspection.is_done:
                self._inspected(self._inspection, now)
        elif now - self._unanswered_since >= PATIENCE_SECONDS and now >= self._due:
            self._inspection, self._is_outdated = self._start_call(self._inspect), False

    def session_delivers(self, now: float) -> None:
        """Record that notifications arrived: the answer may be behind them."""
        self._is_outdated = True
        if self._unanswered_since is not None:
            self._unanswered_since = now

    def _answered(self) -> None:
        if self.problem:
            self._logger.info("PostgreSQL answers the session again; nothing was lost")
        self._unanswered_since, self.problem, self.lock_wait = None, None, LockWait()
        self.is_unreachable = False
        self._is_outdated, self._doubts = True, 0

    def _inspected(self, inspection: Any, now: float) -> None:
        self._inspection, self._due = None, now + _INTERVAL_SECONDS
        try:
            seen: Inspection = inspection.result()
        except (psycopg.Error, OSError, SettingsError) as error:
            # Not knowing is no reason to replace it: the kernel ends a session whose path is cut (tcp_user_timeout).
            # One that refuses, or is too busy for a query, is there: others would only add to what it has to do.
            is_there = is_answer(error) or isinstance(error, QueryTimeout)
            self.is_unreachable = not (self._is_outdated or is_there)
            self._set_problem(f"PostgreSQL does not answer, and a second connection fails: {one_line(error)}")
            return
        self.is_unreachable = False
        if self._is_outdated:
            return
        self.lock_wait = seen.lock_wait
        # Twice, because an answer may be on its way when the first inspection finds that the backend has sent it.
        self._doubts = 0 if seen.is_at_work else self._doubts + 1
        if self._doubts >= _DOUBTS:
            raise psycopg.OperationalError("the answer to the session's query is lost, or its backend is gone")
        if self._doubts:
            return
        self._set_problem(f"PostgreSQL does not answer yet; {describe(self.lock_wait)}")

    def _set_problem(self, text: str) -> None:
        if not self.problem:
            self._logger.warning("%s", text)
        self.problem = text


def describe(wait: LockWait) -> str:
    """What a stall of commits looks like, for logs and pages."""
    return (
        f"{wait.sessions} sessions wait for the notification lock, the first for {wait.seconds:.0f} s: a commit that "
        "notified waits for its flush or its synchronous standby"
    )
