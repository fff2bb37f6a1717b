"""A LISTEN session that a worker's canaries prove: each is a notification to the session itself."""

import time
from collections.abc import Callable

import psycopg

from app.core.listen_session import ListenSession, Notification
from app.core.postgres import canary_sql, listen_sql
from app.core.session_health import SessionHealth

_RETRY_SECONDS = 1.0  # after a canary whose query failed


class CanarySession:
    """Reads a session, and sends a canary to it from time to time; one at a time.

    Args:
        session: the session.
        health: judges it.
        canary_channel: no other session LISTENs on it.
        channels: what to LISTEN on besides.
        interval: seconds between canaries.
        deliver: receives the notifications, in order; the canaries are among them.
        fail: receives the error of a canary whose query failed. The session goes on, unless it was the first.
    """

    def __init__(
        self,
        session: ListenSession,
        health: SessionHealth,
        *,
        canary_channel: str,
        channels: tuple[str, ...],
        interval: float,
        deliver: Callable[[list[Notification]], None],
        fail: Callable[[psycopg.Error], None],
    ) -> None:
        self._session, self._health = session, health
        self._canary_channel, self._channels, self._interval = canary_channel, channels, interval
        self._deliver, self._fail = deliver, fail
        self._is_listening = False  # a canary has come back, so the LISTENs before it were committed
        self._is_awaited = False  # a canary was sent, its query did not fail, and it has not come back
        self._due = 0.0  # the next canary, on the monotonic clock

    def step(self, now: float) -> None:
        """Do what is due, without waiting: read, judge the session, and send a canary.

        Args:
            now: monotonic seconds.

        Raises:
            psycopg.Error, OperatorError: the session is lost, has to be replaced, or can't LISTEN.
        """
        notifications = self._session.receive()
        if notifications:
            self._health.session_delivers(now)
            self._deliver(notifications)
        if any(each.channel == self._canary_channel for each in notifications):
            self._is_listening, self._is_awaited = True, False
        if failure := self._session.take_outcome():
            if not self._is_listening:
                raise failure
            self._is_awaited, self._due = False, now + _RETRY_SECONDS
            self._fail(failure)
        self._health.check(now, is_answered=self._session.is_idle, is_received=not self._is_awaited)
        if self._session.is_idle and now >= self._due:
            self._send(now)

    def _send(self, now: float) -> None:
        channels = () if self._is_listening else self._channels
        canary = canary_sql(self._canary_channel, "", time.time())
        self._session.send(listen_sql([self._canary_channel, *channels], canary))
        self._is_awaited, self._due = True, now + self._interval
