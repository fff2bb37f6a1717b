"""The I/O around the sequencer: one PostgreSQL session, one Redis connection, one thread."""

import logging
import os
import select
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import datetime

import msgspec
import psycopg
from redis.exceptions import RedisError

from app.core.canary import MUX_CHANNEL, Canary
from app.core.heartbeat import HEARTBEAT_SECONDS
from app.core.incident_log import Kind
from app.core.liveness_file import LivenessFile
from app.core.operator_errors import check_direct, check_operator, check_redis_operator
from app.core.postgres import ListenSession, canary_sql, describe, listen_sql, listening_conninfo, literal
from listener.metrics import ListenerMetrics
from listener.redis_stream import RedisStream
from listener.registry import REDIS_RETRY_SECONDS, ListenerRegistry
from listener.sequencer.aligning import ReceivedNotification
from listener.sequencer.control_messages import Begin, ControlMessage, Marker
from listener.sequencer.process_state import ProcessState
from listener.sequencer.redis_requests import Append
from listener.sequencer.sequencer import Sequencer, SequencerStatus
from listener.stats import RoundTripTimer
from notifymux.event import payload_json
from notifymux.reconnect import ReconnectState

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1  # how late a request may be sent that becomes due
_READS_PER_TURN = 1000  # from PostgreSQL, before Redis gets its turn
_DRAIN_TIMEOUT_SECONDS = 4.0  # after SIGTERM, for the events that are not in the stream yet


class Forwarder:
    """Forwards notifications to the stream until it is stopped, and reconnects to both servers.

    Args:
        url: PostgreSQL's connection string.
        channels: to LISTEN on.
        pod: this pod's name, part of the session's `application_name`.
        stream: receives the events.
        registry: receives the heartbeats.
        process: the sequencers' settings and state.
        liveness: shows the watchdog that the loop is running.
        round_trip: measures the canaries.
        metrics: shows what this process does.
    """

    def __init__(
        self,
        *,
        url: str,
        channels: tuple[str, ...],
        pod: str,
        stream: RedisStream,
        registry: ListenerRegistry,
        process: ProcessState,
        liveness: LivenessFile,
        round_trip: RoundTripTimer,
        metrics: ListenerMetrics,
    ) -> None:
        self._url, self._channels = url, channels
        self._conninfo = listening_conninfo(url, f"notifymux-listener/{pod}")
        self._stream, self._registry, self._process = stream, registry, process
        self._liveness, self._metrics, self._metrics_due = liveness, metrics, 0.0
        self._postgres = ReconnectState("PostgreSQL", logger)
        self._redis = ReconnectState("Redis", logger, cap=REDIS_RETRY_SECONDS)
        self._redis_due = self._beat_due = 0.0
        self._publish_checked = self._append_refused = False
        self._backend: tuple[int, datetime] | None = None  # the last session's process id and start, unique together
        self._stats, self._round_trip = process.stats, round_trip
        self._connected_since: float | None = None
        self._stop_by: float | None = None

    def stop(self) -> None:
        """Make `run` append the buffered events and return; for signal handlers."""
        self._stop_by = time.monotonic() + _DRAIN_TIMEOUT_SECONDS
        self._process.draining = True

    def run(self) -> None:
        """Forward until `stop`.

        Raises:
            OperatorError: only an operator can fix it.
        """
        self._stats.incidents.add(Kind.START, f"started as process {os.getpid()}", time.monotonic())
        while self._stop_by is None:
            try:
                # Connecting may take nearly as long as the time after which others take this listener for dead.
                self._beat_due = 0.0
                self._beat(None, time.monotonic())
                with closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                    self._replace(connection)
                    self._forward(ListenSession(connection.pgconn))
            except psycopg.Error as error:
                self._connected_since = None
                self._round_trip.session_lost()
                check_operator(error)
                self._pause(self._postgres.failed(error))
        self._try_redis(self._registry.deregister)

    def _replace(self, connection: psycopg.Connection) -> None:
        """End the session that this one replaces, so that PostgreSQL never shows two of this listener."""
        if self._backend:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s",
                self._backend,
            )
        [(pid, start)] = connection.execute(
            "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        ).fetchall()
        self._backend = pid, start
        check_direct(connection.pgconn, pid)

    def _forward(self, session: ListenSession) -> None:
        sequencer = Sequencer(uuid.uuid4().hex, self._process)
        poll = select.poll()
        poll.register(session, select.POLLIN)
        while not self._is_drained(sequencer):
            now = time.monotonic()
            self._report(sequencer, now)
            self._receive(session, sequencer, now)
            if reason := sequencer.session_failure(now):
                raise psycopg.OperationalError(reason)
            while message := sequencer.to_postgres(now):
                self._send(session, message)
            if sequencer.is_verified and self._connected_since is None:
                self._connected_since = time.time()
                self._postgres.recovered()
                logger.info("connected to %s, listening on %s", describe(self._url), ", ".join(self._channels))
            requested = self._request_redis(sequencer, now)
            poll.poll(0 if requested else _POLL_SECONDS * 1000)

    def _send(self, session: ListenSession, message: ControlMessage) -> None:
        at = time.time()
        session.send(control_sql(message, self._channels, at))
        if isinstance(message, Canary) and message.canary:
            self._round_trip.sent(message.canary, at)

    def _receive(self, session: ListenSession, sequencer: Sequencer, now: float) -> None:
        """Read what PostgreSQL has sent; with the buffer half full, only once for each request to Redis (rule 10)."""
        for _ in range(_READS_PER_TURN):
            if not (notifications := session.receive()):
                break
            at = time.time()
            self._round_trip.received(notifications, at)
            sequencer.on_notifications(
                [ReceivedNotification(channel, payload_json(payload), at) for channel, payload in notifications], now
            )
            if sequencer.is_half_full:
                break

    def _is_drained(self, sequencer: Sequencer) -> bool:
        """Whether to stop: after `stop`, once the stream has every event or the time is over."""
        if self._stop_by is None:
            return False
        if sequencer.unconfirmed and time.monotonic() < self._stop_by:
            return False
        if sequencer.unconfirmed:
            logger.error(
                "stopping with %d events that are not in Redis; clients will be told of a gap", sequencer.unconfirmed
            )
        return True

    def _request_redis(self, sequencer: Sequencer, now: float) -> bool:
        """Perform the sequencer's next request; return whether there was one."""
        if now < self._redis_due:
            return False
        self._beat(sequencer, now)
        request = sequencer.to_redis(now)
        if request is None:
            return False

        def perform() -> None:
            if not self._publish_checked:
                self._stream.check_publish(time.time())
                self._publish_checked = True
            answer = self._stream.perform(request)
            sequencer.on_answer(request, answer, time.monotonic())

        answered = self._try_redis(perform, proof=isinstance(request, Append))
        self._append_refused = not answered and isinstance(request, Append)
        if not answered:
            sequencer.on_redis_failure()
        return True

    def _report(self, sequencer: Sequencer | None, now: float) -> None:
        """Show the watchdog that the loop is running, and update the metrics once a second."""
        self._liveness.touch()
        if now >= self._metrics_due:
            self._metrics_due = now + HEARTBEAT_SECONDS
            reconnects = {"postgres": self._postgres.reconnects, "redis": self._redis.reconnects}
            self._metrics.update(_status(sequencer), reconnects, connected=self._connected_since is not None)

    def _beat(self, sequencer: Sequencer | None, now: float) -> None:
        if now < self._beat_due or now < self._redis_due:
            return
        self._beat_due = now + HEARTBEAT_SECONDS
        stats, round_trip = self._stats, self._round_trip.last
        fields = _status(sequencer)._asdict() | {
            "received": stats.received,
            "added": stats.added,
            "suppressed": stats.suppressed,
            "restored": stats.restored,
            "failovers": stats.failovers,
            "connected_since": "" if self._connected_since is None else f"{self._connected_since:.3f}",
            "round_trip_ms": "" if round_trip is None else f"{round_trip * 1000:.3f}",
        }
        # A heartbeat is small: a full Redis may take it while it still refuses an append.
        self._try_redis(lambda: self._registry.beat(fields, stats.incidents), proof=not self._append_refused)

    def _try_redis(self, call: Callable[[], None], *, proof: bool = False) -> bool:
        """Call and return whether Redis answered; after a failure wait before the next call.

        A call with `proof` shows that the outage is over: it writes, and a full Redis refuses writes but answers reads.
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
        """Wait before the next attempt to connect to PostgreSQL, with heartbeats."""
        until = time.monotonic() + seconds
        while self._stop_by is None and (now := time.monotonic()) < until:
            self._report(None, now)
            self._beat(None, now)
            time.sleep(min(_POLL_SECONDS, until - now))


def _status(sequencer: Sequencer | None) -> SequencerStatus:
    return sequencer.status() if sequencer else SequencerStatus()


def control_sql(message: ControlMessage, channels: Iterable[str], at: float) -> str:
    """The one simple query that sends a control message; a marker's LISTENs on our own channel and `channels` first.

    `at` is the current time, Unix seconds, which a canary carries.
    """
    match message:
        case Marker(token, fingerprint):
            payload = _json(marker=token, fingerprint=fingerprint)
            return listen_sql([MUX_CHANNEL, *channels], f"SELECT pg_notify({literal(MUX_CHANNEL)}, {literal(payload)})")
        case Begin(token, fingerprint, floor, jitter, previous, why):
            rest = _json(by=token, fingerprint=fingerprint, previous=previous, why=why)
            clock_ms = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
            epoch = f"jsonb_build_object('begin', greatest({clock_ms}, {floor:d}) + {jitter:d}, 'floor', {floor:d})"
            return listen_sql(
                [MUX_CHANNEL], f"SELECT pg_notify({literal(MUX_CHANNEL)}, ({epoch} || {literal(rest)}::jsonb)::text)"
            )
        case Canary(canary=token):
            return listen_sql([MUX_CHANNEL], canary_sql(MUX_CHANNEL, token or "", at))


def _json(**fields: str) -> str:
    return msgspec.json.encode(fields).decode()
