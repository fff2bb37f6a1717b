"""The I/O around the numbering: one PostgreSQL session, one Redis connection, one thread."""

import hashlib
import logging
import os
import select
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import datetime
from random import SystemRandom
from typing import NamedTuple

import psycopg
from redis.exceptions import RedisError

from app.core.heartbeat import HEARTBEAT_SECONDS
from app.core.incident_log import Kind
from app.core.liveness_file import LivenessFile
from app.core.operator_errors import check_direct, check_operator, check_redis_operator
from app.core.postgres import ListenSession, describe, listening_conninfo
from listener.metrics import ListenerMetrics
from listener.redis_stream import RedisStream
from listener.registry import REDIS_RETRY_SECONDS, ListenerRegistry
from listener.round_trip import RoundTripTimer
from listener.sequencer.aligning import ReceivedNotification
from listener.sequencer.control_messages import Canary, ControlMessage, statement
from listener.sequencer.redis_requests import Append
from listener.sequencer.sequencer import BufferLimits, Sequencer
from listener.sequencer.status import report
from listener.stats import ListenerStats
from notifymux.event import payload_json
from notifymux.reconnect import ReconnectState

logger = logging.getLogger(__name__)

_TICK = 0.1  # seconds; how late a due request may be
_READS = 1000  # from PostgreSQL, before Redis has its turn
_LEAVE_WITHIN = 4.0  # seconds for what is held, after SIGTERM


def fingerprint(database: str, channels: Iterable[str]) -> str:
    """What two listeners must have in common to count the same: the database and the channels."""
    return hashlib.sha256("\0".join([database, *sorted(channels)]).encode()).hexdigest()[:16]


class Backend(NamedTuple):
    """A session as PostgreSQL knows it."""

    pid: int
    start: datetime


class Forwarder:
    """Forwards notifications to the stream for ever, whatever server goes away.

    Args:
        url: PostgreSQL's connection string.
        channels: what to LISTEN on.
        pod: this pod's name, part of the session's `application_name`.
        stream: where events go.
        registry: where heartbeats go.
        bounds: of what is held while Redis is away.
        canary_interval: seconds.
        pulse: shows the appliance's keeper that this goes round.
        tally: counts what this does.
        round_trip: times its canaries.
        metrics: shows both.
    """

    def __init__(
        self,
        *,
        url: str,
        channels: tuple[str, ...],
        pod: str,
        stream: RedisStream,
        registry: ListenerRegistry,
        bounds: BufferLimits,
        canary_interval: float,
        pulse: LivenessFile,
        tally: ListenerStats,
        round_trip: RoundTripTimer,
        metrics: ListenerMetrics,
    ) -> None:
        self._url, self._channels = url, channels
        self._conninfo = listening_conninfo(url, f"notifymux-listener/{pod}")
        self._fingerprint = fingerprint(str(psycopg.conninfo.conninfo_to_dict(url).get("dbname", "")), channels)
        self._stream, self._registry = stream, registry
        self._bounds, self._canary_interval = bounds, canary_interval
        self._pulse, self._metrics, self._metrics_due = pulse, metrics, 0.0
        self._postgres = ReconnectState("PostgreSQL", logger)
        self._redis = ReconnectState("Redis", logger, cap=REDIS_RETRY_SECONDS)
        self._redis_due = self._beat_due = 0.0
        self._probed = self._append_refused = False
        self._backend: Backend | None = None
        self._highest = 0
        self._tally, self._round_trip = tally, round_trip
        self._connected_since: float | None = None
        self._stop_by: float | None = None

    def stop(self) -> None:
        """Makes `run` append what is held and return; for signal handlers."""
        self._stop_by = time.monotonic() + _LEAVE_WITHIN

    def run(self) -> None:
        """Forwards until `stop`.

        Raises:
            OperatorError: only an operator can mend it.
        """
        self._tally.incidents.add(Kind.START, f"started as process {os.getpid()}", time.monotonic())
        while self._stop_by is None:
            try:
                self._beat_due = 0.0  # connecting may take as long as others wait until they take this one for dead
                self._beat(None, time.monotonic())
                with closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                    self._replace(connection)
                    self._forward(ListenSession(connection.pgconn))
            except psycopg.Error as error:
                self._connected_since = None
                self._round_trip.lost()
                check_operator(error)
                self._pause(self._postgres.failed(error))
        self._try_redis(self._registry.deregister)

    def _replace(self, connection: psycopg.Connection) -> None:
        """Ends the session this one replaces, so that PostgreSQL never shows two."""
        if self._backend:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s",
                self._backend,
            )
        row = connection.execute(
            "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        ).fetchone()
        self._backend = Backend(*row) if row else None
        check_direct(connection.pgconn, self._backend and self._backend.pid)

    def _forward(self, session: ListenSession) -> None:
        numbering = Sequencer(
            uuid.uuid4().hex,
            self._fingerprint,
            self._bounds,
            canary_interval=self._canary_interval,
            rng=SystemRandom(),
            tally=self._tally,
            highest=self._highest,
        )
        poll = select.poll()
        poll.register(session, select.POLLIN)
        while not self._is_over(numbering):
            now = time.monotonic()
            self._show(numbering, now)
            self._hear(session, numbering, now)
            if reason := numbering.lost(now):
                raise psycopg.OperationalError(reason)
            while message := numbering.to_postgres(now):
                self._send(session, message)
            if numbering.proven and self._connected_since is None:
                self._connected_since = time.time()
                self._postgres.recovered()
                logger.info("connected to %s, listening on %s", describe(self._url), ", ".join(self._channels))
            asked = self._ask_redis(numbering, now)
            poll.poll(0 if asked else _TICK * 1000)
        self._highest = numbering.highest

    def _send(self, session: ListenSession, message: ControlMessage) -> None:
        at = time.time()
        session.send(statement(message, self._channels, at))
        if isinstance(message, Canary):
            self._round_trip.sent(message.token, at)

    def _hear(self, session: ListenSession, numbering: Sequencer, now: float) -> None:
        """Takes what PostgreSQL has sent; past half of what may be held, one read for each turn of Redis's."""
        for _ in range(_READS):
            if not (notifications := session.receive()):
                break
            at = time.time()
            self._round_trip.heard(notifications, at)
            numbering.hear(
                [ReceivedNotification(channel, payload_json(payload), at) for channel, payload in notifications], now
            )
            if numbering.is_half_full:
                break

    def _is_over(self, numbering: Sequencer) -> bool:
        if self._stop_by is None:
            return False
        numbering.leave()
        if numbering.held and time.monotonic() < self._stop_by:
            return False
        if numbering.held:
            logger.error(
                "stopping with %d events that Redis did not take; clients will be told of a gap", numbering.held
            )
        return True

    def _ask_redis(self, numbering: Sequencer, now: float) -> bool:
        """Carries out what is due; whether there was something."""
        if now < self._redis_due:
            return False
        self._beat(numbering, now)
        request = numbering.to_redis(now)
        if request is None:
            return False

        def ask() -> None:
            if not self._probed:
                self._stream.probe(time.time())
                self._probed = True
            answer = self._stream.perform(request)
            numbering.answered(request, answer, time.monotonic())

        answered = self._try_redis(ask, proof=isinstance(request, Append))
        self._append_refused = not answered and isinstance(request, Append)
        if not answered:
            numbering.redis_failed()
        return True

    def _show(self, numbering: Sequencer | None, now: float) -> None:
        """Shows that this goes round, and, once a second, how."""
        self._pulse.beat()
        if now >= self._metrics_due:
            self._metrics_due = now + HEARTBEAT_SECONDS
            reconnects = {"postgres": self._postgres.reconnects, "redis": self._redis.reconnects}
            self._metrics.update(report(numbering), reconnects, connected=self._connected_since is not None)

    def _beat(self, numbering: Sequencer | None, now: float) -> None:
        if now < self._beat_due or now < self._redis_due:
            return
        self._beat_due = now + HEARTBEAT_SECONDS
        fields = report(numbering) | self._report()
        # A heartbeat is small, and passes now and then where an append is still refused.
        self._try_redis(lambda: self._registry.beat(fields, self._tally.incidents), proof=not self._append_refused)

    def _report(self) -> dict[str, str | int]:
        tally, round_trip = self._tally, self._round_trip.last
        return {
            "received": tally.received,
            "added": tally.added,
            "suppressed": tally.suppressed,
            "restored": tally.restored,
            "failovers": tally.failovers,
            "connected_since": "" if self._connected_since is None else f"{self._connected_since:.3f}",
            "round_trip_ms": "" if round_trip is None else f"{round_trip * 1000:.3f}",
        }

    def _try_redis(self, call: Callable[[], None], *, proof: bool = False) -> bool:
        """Whether Redis answered; if it did not, nothing is asked of it for a while.

        `proof` calls show that it is well: they write, which a full Redis refuses while it still answers.
        """
        try:
            call()
        except RedisError as error:
            check_redis_operator(error)
            self._redis_due = time.monotonic() + self._redis.failed(error)
            return False
        if proof:
            self._redis.recovered()
        return True

    def _pause(self, seconds: float) -> None:
        """Waits before PostgreSQL is tried again, with heartbeats."""
        until = time.monotonic() + seconds
        while self._stop_by is None and (now := time.monotonic()) < until:
            self._show(None, now)
            self._beat(None, now)
            time.sleep(min(_TICK, until - now))
