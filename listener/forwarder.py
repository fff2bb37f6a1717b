"""Forwards notifications from a PostgreSQL session to the stream in Redis.

The forwarder is a machine: whoever runs it calls `step` again and again (`listener.__main__`, and tests/simulation with
simulated servers). No step waits for a server: connections are opened, and looked at from outside, in threads, and
`listener.redis_exchange` takes Redis's answers when they are there.
"""

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from app.core.canary import Canary
from app.core.incident_log import Kind
from app.core.operator_errors import OperatorError, with_remedy
from app.core.postgres_connect import SESSION_ERRORS, LockWait, SessionError, retry_delay
from listener.environment import Environment, HasFileno, Health, NoLongerWantedError, Session
from listener.redis_exchange import IDLE_SECONDS, RedisExchange
from listener.reserves import RESERVE
from listener.sequencer.control_messages import ControlMessage
from listener.sequencer.process_state import ProcessState
from listener.sequencer.sequencer import Sequencer, SequencerStatus
from listener.sequencer.snapshot import Snapshot
from listener.slot_state import SlotState
from listener.stats import RoundTripTimer
from notifymux.background_call import PendingCall
from notifymux.reconnect import ReconnectState, one_line

logger = logging.getLogger(__name__)

_CONNECTING_SECONDS = 0.02  # between two looks at a connection that is being made
_READS_PER_STEP = 1000  # from PostgreSQL, before Redis gets its turn
_MANY = 10  # notifications of one read, after which more of them are likely to wait
_DRAIN_TIMEOUT_SECONDS = 4.0  # after `stop`, for the events that are not in the stream yet


class ForwarderStatus(NamedTuple):
    """What a forwarder shows of itself, besides the counters."""

    sequencer: SequencerStatus
    connected_since: float | None  # Unix seconds; None without a session that delivers
    outage: str  # why PostgreSQL is away; empty if it is not
    is_unreachable: bool  # the session does not answer, and no other can be opened
    lock_wait: LockWait
    reconnects: dict[str, int]  # outages that ended, by server
    slot: SlotState | None  # with a session that reads it


class Forwarder:
    """One listener process's work.

    Args:
        environment: the servers and the clocks.
        process: the sequencers' settings and state.
        round_trip: measures the canaries.
        description: of what is forwarded, for the log line at a new connection.
    """

    def __init__(
        self, environment: Environment, process: ProcessState, round_trip: RoundTripTimer, description: str
    ) -> None:
        self._env, self._process, self._round_trip = environment, process, round_trip
        self._description = description
        self._postgres = ReconnectState("PostgreSQL", logger)
        self._redis = RedisExchange(environment)
        self._connect_due = 0.0
        self._connecting: PendingCall | None = None
        self._session: Session | None = None
        self._sequencer: Sequencer | None = None
        self._health: Health | None = None
        # The sequencer of a lost session: its events have their ids, and are appended before anything else.
        self._leftover: Sequencer | None = None
        self._connected_since: float | None = None
        self._said_reserve = False  # whether the log says so, and nothing of the session since
        self._query_failure = ""  # why the last control message failed, as it was logged
        self._stop_by: float | None = None
        process.stats.incidents.add(Kind.START, f"started as process {os.getpid()}", environment.monotonic())

    def stop(self) -> None:
        """Have the buffered events appended, after which `is_done`; for signal handlers."""
        self._stop_by = self._env.monotonic() + _DRAIN_TIMEOUT_SECONDS
        self._process.draining = True

    @property
    def is_done(self) -> bool:
        """Whether to end: after `stop`, once the stream has every event or the time is over."""
        if self._stop_by is None:
            return False
        return not self._unconfirmed or self._env.monotonic() >= self._stop_by

    @property
    def _unconfirmed(self) -> int:
        sequencers = (self._leftover, self._sequencer)
        return sum(sequencer.unconfirmed for sequencer in sequencers if sequencer)

    @property
    def session(self) -> Session | None:
        """The current session."""
        return self._session

    @property
    def to_read(self) -> list[HasFileno | PendingCall]:
        """What to wait on until it is readable: the session, unless it is not read now, and an answer of Redis."""
        sockets = self._session.sockets if self._session and not self._holds_back else ()
        answer = self._redis.awaited(self._unconfirmed)
        return [*sockets, answer] if answer else [*sockets]

    @property
    def to_write(self) -> Sequence[HasFileno]:
        """What to wait on until it is writable: workers that have not read what they were fed."""
        return self._env.feed.blocked

    @property
    def _holds_back(self) -> bool:
        """Whether what the session receives is left in PostgreSQL until Redis has answered (rule 10)."""
        sequencer = self._sequencer
        return sequencer is not None and (sequencer.holds_back or (self._redis.is_waiting and sequencer.is_half_full))

    def close(self) -> None:
        """End the session, and record in the registry that this listener ended."""
        self._redis.finish()
        if self._unconfirmed:
            logger.error(
                "stopping with %d events that are not in Redis; clients will be told of a gap", self._unconfirmed
            )
        if self._session:
            self._session.close()
        self._env.feed.close()
        self._redis.attempt(self._env.registry.deregister)

    def step(self) -> float:
        """Do what is due; return the seconds until the next step, unless the session becomes readable before."""
        now = self._env.monotonic()
        try:
            self._receive(now)
            self._take_outcome(now)
            self._feed()
            self._step_session(now)
        except SESSION_ERRORS as error:
            self._lose_session(error)
            self._feed()
        seconds = self._redis.step(self._next_sequencer, self._heartbeat, self._role, self._unconfirmed)
        return min(seconds, self._seconds_to_postgres(now))

    def _seconds_to_postgres(self, now: float) -> float:
        if self._connecting and not self._env.waits_for():
            return _CONNECTING_SECONDS
        if self._sequencer and self._session and self._session.is_idle:
            return self._sequencer.seconds_to_query(now)
        return IDLE_SECONDS

    # PostgreSQL.

    def _step_session(self, now: float) -> None:
        session, sequencer, health = self._session, self._sequencer, self._health
        if session is None or sequencer is None or health is None:
            self._open_session(now)
            return
        session.confirm(sequencer.confirmable)
        health.check(now, is_answered=session.is_idle, is_received=not sequencer.awaits_own_message)
        if reason := sequencer.session_failure:
            raise OperatorError(reason)
        if self._env.reserves.has_to_leave and sequencer.can_leave:
            self._become_reserve()
            return
        if session.is_idle and sequencer.is_verified:
            self._session_works()
        if session.is_idle and (message := sequencer.to_postgres(now)):
            self._send(session, message)

    def _open_session(self, now: float) -> None:
        """Open a session in the background, and take it into use when it is open."""
        if self._stop_by is not None:
            return
        if self._connecting is None:
            if self._env.reserves.is_full:
                self._postgres.forget()  # others reach it
                self._say_reserve()
            if now >= self._connect_due and self._env.reserves.may_join:
                self._connecting = self._env.start_call(self._env.connect)
            return
        if not self._connecting.is_done:
            if self._env.waits_for():
                self._postgres.recovered()  # it answers: another listener receives what it has
                self._said_reserve = False
            return
        connecting, self._connecting = self._connecting, None
        try:
            session: Session = connecting.result()
        except NoLongerWantedError:
            self._become_reserve()
            return
        if reason := self._process.why_outdated(session.cluster):
            session.close()
            raise OperatorError(reason)
        self._session, self._said_reserve = session, False
        if session.cluster:
            self._process.saw_cluster(session.cluster)
        self._sequencer = session.new_sequencer(self._env.new_session_id(), self._process)
        self._health = session.new_health(logger, self._env.start_call)
        self._redis.beat_soon()  # others count those that hold a session

    def _take_outcome(self, now: float) -> None:
        """Process the answer to the last query. A snapshot may number events, so this comes before they are fed."""
        session, sequencer = self._session, self._sequencer
        if session is None or sequencer is None:
            return
        match session.take_outcome():
            case Snapshot() as snapshot:
                sequencer.on_snapshot(snapshot, now)
            case psycopg.Error() as error:
                self._query_failed(error)
                sequencer.on_query_failure(now)

    def _query_failed(self, error: psycopg.Error) -> None:
        """Log that a control message notified nobody; a session that has delivered goes on.

        Raises:
            psycopg.Error: the session's first query failed, so it LISTENs on nothing.
        """
        if self._connected_since is None:
            raise error
        if (failure := one_line(with_remedy(error))) != self._query_failure:
            self._query_failure = failure
            logger.warning("a canary failed: %s; the session is kept, and a canary follows every second", failure)

    def _session_works(self) -> None:
        self._postgres.recovered()
        self._query_failure = ""
        if self._connected_since is None:
            self._connected_since = self._env.wall()
            logger.info("connected to %s", self._description)

    def _lose_session(self, error: SessionError) -> None:
        self._end_session()
        self._connect_due = self._env.monotonic() + retry_delay(self._postgres, error)
        self._said_reserve = False

    def _become_reserve(self) -> None:
        """Rule 18: end the session; what it holds is appended as that of a lost one (rule 1)."""
        self._end_session()
        self._env.reserves.left()
        self._say_reserve()

    def _say_reserve(self) -> None:
        if not self._said_reserve:
            self._said_reserve = True
            logger.info("this listener is a reserve now: enough others hold a session (LISTENERS_MAX)")

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session:
            session.close()
        if self._sequencer and self._sequencer.can_finish:
            self._leftover = self._sequencer
        self._sequencer = self._health = self._connected_since = None
        self._round_trip.session_lost()
        self._redis.beat_soon()

    def _send(self, session: Session, message: ControlMessage) -> None:
        session.notify(message)
        if isinstance(message, Canary) and message.canary:
            self._round_trip.sent(message.canary, self._env.wall())

    def _receive(self, now: float) -> None:
        """Read what PostgreSQL has sent; with the buffer half full, only once for each request to Redis (rule 10).

        What follows a few notifications is left for the next step, so that they are fed first.
        """
        session, sequencer, health = self._session, self._sequencer, self._health
        if session is None or sequencer is None or health is None:
            return
        for _ in range(_READS_PER_STEP):
            if self._holds_back or not (notifications := session.receive()):
                break
            at = self._env.wall()
            self._round_trip.received(notifications, at)
            health.session_delivers(now)
            sequencer.on_received(notifications, at, now)
            if sequencer.is_half_full or len(notifications) < _MANY:
                break

    def _feed(self) -> None:
        self._env.feed.step(self._sequencer.fed_epoch if self._sequencer else None)

    # Redis.

    def _next_sequencer(self) -> Sequencer | None:
        """Whose request is next: a lost session's events come before those of the session that replaces it."""
        if self._leftover and not self._leftover.can_finish:
            self._leftover = None
        return self._leftover or self._sequencer

    def _heartbeat(self) -> PendingCall:
        """Send a heartbeat."""
        stats, round_trip, status = self._process.stats, self._round_trip.last, self.status()
        fields = status.sequencer._asdict() | {
            "received": stats.received,
            "added": stats.added,
            "suppressed": stats.suppressed,
            "restored": stats.restored,
            "failovers": stats.failovers,
            "connected_since": "" if status.connected_since is None else f"{status.connected_since:.3f}",
            "round_trip_ms": "" if round_trip is None else f"{round_trip * 1000:.3f}",
            "clock_ahead": "" if (ahead := self._round_trip.clock.seconds) is None else f"{ahead:.3f}",
            "outage": status.outage,
            "unreachable": "1" if status.is_unreachable else "",
            "lock_waiters": status.lock_wait.sessions,
            "lock_wait_seconds": f"{status.lock_wait.seconds:.3f}",
            **(status.slot.heartbeat_fields() if status.slot else {}),
        }
        return self._env.registry.start_beat(fields, stats.incidents)

    # Its state.

    def _role(self) -> str:
        return self._sequencer_status().role

    def _sequencer_status(self) -> SequencerStatus:
        if self._sequencer:
            return self._sequencer.status()
        if self._connecting and (other := self._env.waits_for()):
            return SequencerStatus("waiting", passive=other)
        is_reserve = self._env.reserves.is_reserve and not self._connecting and not self._postgres.reason
        return SequencerStatus(RESERVE) if is_reserve else SequencerStatus()

    def status(self) -> ForwarderStatus:
        """What the heartbeat and the metrics show."""
        health = self._health
        return ForwarderStatus(
            self._sequencer_status(),
            self._connected_since,
            self._postgres.reason or (health.problem if health else None) or "",
            health.is_unreachable if health else False,
            health.lock_wait if health else LockWait(),
            {"postgres": self._postgres.reconnects, "redis": self._redis.state.reconnects},
            self._session.slot_state if self._session else None,
        )
