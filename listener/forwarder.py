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
from app.core.config import load_settings
from app.core.operator_errors import OperatorError
from app.core.postgres import (
    IDENTITY,
    Job,
    ListenSession,
    ask,
    connect,
    database_url,
    describe,
    listening_conninfo,
    look,
)
from listener.metrics import ListenerMetrics
from listener.redis_stream import RedisStream
from listener.registry import REDIS_RETRY, ListenerRegistry
from listener.round_trip import RoundTripTimer
from listener.sequencer.active import Active
from listener.sequencer.aligning import ReceivedNotification
from listener.sequencer.control_messages import Canary, ControlMessage, statement
from listener.sequencer.redis_requests import Append
from listener.sequencer.sequencer import BufferLimits, Sequencer
from listener.sequencer.status import report
from listener.stats import ListenerStats
from notifymux.event import payload_json
from notifymux.outage import Outage

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
    start: str


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
        self._conninfo_name = f"notifymux-listener/{pod}"
        self._conninfo = listening_conninfo(url, self._conninfo_name)
        self._fingerprint = fingerprint(str(psycopg.conninfo.conninfo_to_dict(url).get("dbname", "")), channels)
        self._stream, self._registry = stream, registry
        self._bounds, self._canary_interval = bounds, canary_interval
        self._pulse, self._metrics, self._metrics_due = pulse, metrics, 0.0
        self._postgres = Outage("PostgreSQL", logger)
        self._redis = Outage("Redis", logger, cap=REDIS_RETRY)
        self._redis_due = self._beat_due = 0.0
        self._probed = self._append_refused = False
        self._backend: Backend | None = None
        self._highest = 0
        self._tally, self._round_trip = tally, round_trip
        self._connected_since: float | None = None
        self._stop_by: float | None = None
        self._old: Sequencer | None = None
        self._numbering: Sequencer | None = None
        self._timelines: dict[str, int] = {}
        self._lock_waiters, self._lock_seconds = 0, 0.0

    def stop(self) -> None:
        """Makes `run` append what is held and return; for signal handlers."""
        self._stop_by = time.monotonic() + _LEAVE_WITHIN

    def run(self) -> None:
        """Forwards until `stop`.

        Raises:
            OperatorError: only an operator can mend it.
        """
        self._tally.incidents.note(Kind.START, f"started as process {os.getpid()}", time.monotonic())
        while self._stop_by is None:
            try:
                self._beat_due = 0.0
                job = Job(self._open)
                while not job.done and self._stop_by is None:
                    self._pause(_TICK)
                if not job.done:
                    break
                if job.error:
                    raise job.error
                with closing(job.result) as connection:
                    try:
                        self._forward(ListenSession(connection.pgconn))
                    except psycopg.Error:
                        self._keep(self._numbering)
                        raise
            except (psycopg.Error, OperatorError) as error:
                self._connected_since = None
                self._round_trip.lost()
                try:
                    if isinstance(error, psycopg.Error):
                        check_operator(error)
                except OperatorError as known:
                    error = known
                self._pause(self._postgres.failed(error))
        self._try_redis(self._registry.leave)

    def _open(self) -> psycopg.Connection:
        self._url = database_url(_settings())
        self._conninfo = listening_conninfo(self._url, self._conninfo_name)
        connection = connect(self._conninfo)
        try:
            pgconn = connection.pgconn
            if self._backend:
                ask(
                    pgconn,
                    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_get_activity(%s) WHERE backend_start = '%s'"
                    % self._backend,
                    4,
                )
            [[pid, start, system, timeline, _]] = ask(pgconn, IDENTITY, 4)
            check_direct(pgconn, int(pid))
            system, timeline = system.decode(), int(timeline)
            if timeline < self._timelines.get(system, 0):
                raise psycopg.OperationalError(
                    f"this server is on timeline {timeline}, an older timeline than {self._timelines[system]}"
                )
            self._timelines[system] = timeline
            self._backend = Backend(int(pid), start.decode())
            self._fingerprint = f"{system}/{timeline}/" + fingerprint(
                str(psycopg.conninfo.conninfo_to_dict(self._url).get("dbname", "")), self._channels
            )
        except BaseException:
            connection.close()
            raise
        return connection

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
        looking: Job | None = None
        sent_at, look_due = time.monotonic(), 0.0
        self._numbering = numbering
        poll = select.poll()
        poll.register(session, select.POLLIN)
        while not self._is_over(numbering):
            now = time.monotonic()
            self._show(numbering, now)
            self._hear(session, numbering, now)
            self._highest = numbering.highest
            if session.failed:
                logger.warning("a query of the listener's own failed: %s", session.failed)
                session.failed = None
                numbering.query_failed(now)
            if session.idle:
                if numbering.unheard:
                    raise psycopg.OperationalError(
                        "answered, and its own notification was not delivered: DB_HOST leads to a pooler"
                    )
                sent_at = now
                if self._lock_waiters:
                    self._lock_waiters, self._lock_seconds = 0, 0.0
            elif looking and looking.done:
                at_work, self._lock_waiters, self._lock_seconds = looking.result or (None, 0, 0)
                looking, look_due = None, now + 1
                if at_work is False:
                    self._lock_waiters = 0
                    self._keep(numbering)
                    raise psycopg.OperationalError("the session did not come back within 4 s: the path to it is cut")
                if at_work and not self._stall_said:
                    self._stall_said = True
                    logger.warning(
                        "%d sessions wait for the notification lock for %.0f s: a commit waits",
                        self._lock_waiters,
                        self._lock_seconds,
                    )
                if at_work is None:
                    self._connected_since = None
            elif not looking and now - sent_at > 2 and now >= look_due:
                looking = Job(lambda: look(self._conninfo, *self._backend))
            if session.idle:
                self._stall_said = False
            while session.idle and (message := numbering.to_postgres(now)):
                self._send(session, message)
            if numbering.proven and self._connected_since is None:
                self._connected_since = time.time()
                self._postgres.over()
                logger.info("connected to %s, listening on %s", describe(self._url), ", ".join(self._channels))
            asked = self._ask_redis(numbering, now)
            poll.poll(0 if asked else _TICK * 1000)
        self._highest = numbering.highest

    _stall_said = False

    def _keep(self, numbering: Sequencer) -> None:
        numbering.leave()
        self._old = numbering if numbering.held else None

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

    def _ask_redis(self, numbering: Sequencer | None, now: float) -> bool:
        """Carries out what is due; whether there was something."""
        if self._old and not (self._old.held and isinstance(self._old.phase, Active)):
            self._old = None
        numbering = self._old or numbering
        if numbering is None:
            return False
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
            reconnects = {"postgres": self._postgres.recoveries, "redis": self._redis.recoveries}
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
            "passive": self._numbering.passive if self._numbering else "",
            "outage": self._postgres.reason or "",
            "lock_waiters": self._lock_waiters,
            "lock_seconds": f"{self._lock_seconds:.3f}",
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
            self._redis.over()
        return True

    def _pause(self, seconds: float) -> None:
        """Waits before PostgreSQL is tried again, with heartbeats."""
        until = time.monotonic() + seconds
        while self._stop_by is None and (now := time.monotonic()) < until:
            self._show(None, now)
            self._beat(None, now)
            while self._old and self._ask_redis(None, time.monotonic()):
                pass
            time.sleep(max(0, min(_TICK, until - time.monotonic())))


def _settings():
    from app.core.config import SettingsError

    try:
        return load_settings()
    except SettingsError as error:
        raise OperatorError(str(error)) from None
