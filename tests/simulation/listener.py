"""A listener: the product's `Forwarder` with simulated servers, threads and clocks around it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from redis import exceptions
from redis.backoff import ExponentialBackoff

from app.core.postgres_connect import SESSION_ERRORS
from listener.environment import Environment, NoLongerWantedError
from listener.forwarder import Forwarder
from listener.registry import REDIS_RETRY_SECONDS, ListenerRegistry
from listener.reserves import Reserves
from listener.sequencer.active import Active
from listener.sequencer.aligning import Aligning
from listener.sequencer.anchoring import Anchoring
from listener.sequencer.control_messages import Begin, ControlMessage
from listener.sequencer.feed_cursor import FeedCursor, FeedSource
from listener.sequencer.process_state import ProcessState
from listener.sequencer.redis_requests import (
    Answer,
    Append,
    AppendResult,
    CheckOtherListeners,
    ReadAfter,
    ReadEntry,
    ReadHead,
    ReadRecent,
    Request,
)
from listener.sequencer.sequencer import Sequencer
from listener.stats import ListenerStats, RoundTripTimer
from notifymux.event import EventId
from notifymux.redis_keys import RedisNames
from tests.simulation.postgres import CHANNEL, EXTRA_CHANNEL, Backend, SimulatedSession
from tests.simulation.redis import Redis, RegistryClient
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

MAX_UNREAD_LINES = 40  # for which there is room in a socket

# What Redis answers instead of performing a request, and whether it refuses writes only.
REFUSALS: dict[str, tuple[Callable[[], exceptions.RedisError], bool]] = {
    "READONLY": (lambda: exceptions.ReadOnlyError("You can't write against a read only replica."), True),
    "MISCONF": (lambda: exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), True),
    "OOM": (lambda: exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), True),
    "LOADING": (lambda: exceptions.BusyLoadingError("Redis is loading the dataset in memory"), False),
    "BUSY": (lambda: exceptions.ResponseError("BUSY Redis is busy running a script."), False),
}


class Crashed(Exception):  # noqa: N818 - it is no error
    """The process ended inside a request."""


class StillWaiting(Exception):  # noqa: N818 - it is no error
    """A call in a thread has not ended."""


class Listener:
    """One listener process after another, under one name.

    A step of the forwarder is one step here, except that other actors may act while a request to Redis is under way,
    and while its answer is: the process is frozen there, or crashes.
    """

    def __init__(self, world: World, name: str, *, extra: bool) -> None:
        self.world, self.name = world, name
        self.channels = frozenset([CHANNEL, EXTRA_CHANNEL] if extra else [CHANNEL])
        self.redis = world.redis
        self.running = True
        self.paused_until = self.starts_at = 0.0
        self.postgres_in = self.postgres_out = True  # the paths from and to PostgreSQL
        self.is_proxied = False  # a proxy keeps up the connection while the path behind it is cut
        self.calls_are_silent = False  # connecting, and looking at a session, do not end
        self.redis_path = "open"  # or "cut", or "deaf": the request is performed, but the answer is lost
        self.slow = self.protected = False
        self.clock_error = 0.0  # seconds
        self.incarnation = 0
        self.held_at = -100.0  # when it last held a session, and knew its ids
        self._is_in_step = False
        self._readable = 0
        self._cause: str | None = None  # the last request, for the counts of transitions
        self._start()

    def _start(self) -> None:
        world = self.world
        fingerprint = ",".join(sorted(self.channels))
        self.process = ProcessState(fingerprint, world.limits, 0.7, ListenerStats(), world.rng, self._wall)
        self._last_backend: Backend | None = None
        self._highest_epoch = 0  # of this process
        self._former_epoch = 0  # the same, when the session was opened
        self._held: tuple[Sequencer, EventId] | None = None  # a lost session's, and its last id
        self.stopping = False
        self.waits_for = ""  # why connecting has not ended yet
        self.feed: SimulatedFeed = SimulatedFeed(world.check_fed)
        instance_id = f"{self.name}.{self.incarnation}"
        client: Any = RegistryClient(self.request)
        names = RedisNames("sim")
        registry = ListenerRegistry(
            client,
            names,
            self.name,
            "listener",
            instance_id,
            channels=sorted(self.channels),
            start=self._start_pipeline,
            monotonic=lambda: world.now,
            wall=self._wall,
        )
        self.reserves = CheckedReserves(self, registry)
        environment = Environment(
            connect=self._connect,
            waits_for=lambda: self.waits_for,
            start_call=lambda call: SimulatedCall(self, call),
            stream=SimulatedStream(self, registry),
            registry=registry,
            reserves=self.reserves,
            feed=self.feed,
            monotonic=lambda: world.now,
            wall=self._wall,
            new_session_id=lambda: f"{world.rng.getrandbits(64):016x}",
        )
        self.forwarder = Forwarder(environment, self.process, RoundTripTimer(), "a simulation")
        # Without jitter: it is drawn from a generator that the seed does not determine.
        vars(self.forwarder._postgres)["_backoff"] = ExponentialBackoff(cap=5.0, base=0.1)
        vars(self.forwarder._redis.state)["_backoff"] = ExponentialBackoff(cap=REDIS_RETRY_SECONDS, base=0.1)

    def _start_pipeline(self, _: Any, pipeline: Any, parse: Callable[[Any], Any]) -> SimulatedAnswer:
        if pipeline.is_empty:
            raise Violation("a request without a command has no answer")
        return SimulatedAnswer(self, lambda: parse(pipeline.execute()))

    def _wall(self) -> float:
        return self.world.wall + self.clock_error

    def crash(self, *, for_seconds: float | None = None) -> None:
        """End the process without a chance to do anything, and start it again."""
        if self._last_backend:
            commits = self.world.rng.random() < 0.5
            self._last_backend.server.disconnect(self._last_backend, commits=commits)
        self.incarnation += 1
        self.feed.close()
        self._start()
        delay = self.world.rng.choice([0.1, 1.0, 4.0]) if for_seconds is None else for_seconds
        self.starts_at = self.world.now + delay

    def stop(self) -> None:
        """SIGTERM; the process starts again when it has ended."""
        self.stopping = True
        self.forwarder.stop()

    @property
    def sequencer(self) -> Sequencer | None:
        return self.forwarder._sequencer

    @property
    def active(self) -> Active | None:
        phase = self.sequencer.phase if self.sequencer else None
        return phase if isinstance(phase, Active) else None

    @property
    def holds(self) -> bool:
        """Whether it does its part for others."""
        return self.active is not None

    @property
    def session(self) -> SimulatedSession | None:
        session = self.forwarder.session
        assert session is None or isinstance(session, SimulatedSession)
        return session

    def step(self, now: float) -> None:
        if not self.running or self._is_in_step or now < self.starts_at or now < self.paused_until:
            return
        if self.slow and self.world.rng.random() < 0.8:
            return
        self._is_in_step = True
        try:
            for _ in range(self.world.rng.choice([3, 1, 1])):
                self._readable = self.world.rng.choice([1, 5, 100]) if self.postgres_in else 0
                if self._step_forwarder():
                    break
            if self.stopping and self.forwarder.is_done:
                self.forwarder.close()
                self.crash()
        except Crashed:
            pass
        finally:
            self._is_in_step = False

    def _step_forwarder(self) -> bool:
        """Step once; return whether the forwarder waits after it."""
        self._before, self._cause = self._phase(), None
        session, delivered = self.session, self.session.delivered if self.session else 0
        sequencer, active = self.sequencer, self.active
        held = active.position if active and active.buffer and not active.gap else None
        waits = self.forwarder.step() > 0
        if sequencer and held and self.session is not session:
            self._held = sequencer, held
        self._check_held()
        if self.holds:
            self.held_at = self.world.now
        if self.active:
            self._highest_epoch = max(self._highest_epoch, self.active.epoch)
        if self._cause is None and session is self.session and session and session.delivered > delivered:
            self._count_transition("notifications")
        elif self._cause:
            self._count_transition(self._cause)
        return waits

    def _check_held(self) -> None:
        """What a lost session held comes into the stream, unless a later epoch does or others have to fill a gap."""
        if self._held is None or self.forwarder._leftover is self._held[0]:
            return
        (sequencer, last), self._held = self._held, None
        if isinstance(sequencer.phase, Active) and not sequencer.phase.gap and self.world.appended < last:
            raise Violation(f"events up to {last} that a lost session held are not in the stream")

    def check_sent(self, message: ControlMessage) -> None:
        if isinstance(message, Begin) and message.floor <= self._former_epoch:
            raise Violation(f"a begin with the floor {message.floor} although this process knew {self._former_epoch}")

    def transmit(self) -> None:
        """Let the query that was sent arrive at PostgreSQL."""
        if self.session and self.postgres_out:
            self.session.transmit(self.world.now)

    # PostgreSQL.

    @property
    def now(self) -> float:
        return self.world.now

    def readable(self) -> int:
        """How much of what PostgreSQL has sent has arrived."""
        readable, self._readable = self._readable, 0
        return readable

    @property
    def is_cut(self) -> bool:
        return not (self.postgres_in and self.postgres_out)

    def check_reachable(self) -> None:
        if self.is_cut:
            raise psycopg.OperationalError("timeout expired")

    def _connect(self) -> SimulatedSession:
        self.check_reachable()
        server = self.world.resolve()
        if self._last_backend:
            self._last_backend.server.disconnect(self._last_backend)
        self._last_backend = server.connect()
        self._former_epoch = self._highest_epoch
        return SimulatedSession(self, self._last_backend)

    # Redis.

    def request(self, perform: Callable[[Redis], T], is_write: bool) -> T:
        """Perform a request to Redis, or fail. Other actors may act before and after."""
        self._wait_for_redis()
        if not self.redis.up or self.redis_path == "cut":
            raise exceptions.ConnectionError("connection refused")
        if self.redis.refusal:
            error, writes_only = REFUSALS[self.redis.refusal]
            if is_write or not writes_only:
                raise error()
        answer = perform(self.redis)
        self._wait_for_redis()
        if self.redis_path == "deaf" or self.world.loses_answer(self):
            raise exceptions.TimeoutError("Timeout reading from socket")
        return answer

    def _wait_for_redis(self) -> None:
        incarnation = self.incarnation
        self.world.tick_within_request(self)
        if self.incarnation != incarnation:
            raise Crashed

    # Counts of transitions.

    def answered(self, request: Request, answer: Answer) -> None:
        """The current session takes an answer; the step's end shows what that did, after the notifications before."""
        if (before := self._phase()) != self._before:
            self._count_transition("notifications")
            self._before = before
        name = type(request).__name__
        self._cause = f"{name} {answer.status.value}" if isinstance(answer, AppendResult) else name

    def _phase(self) -> str:
        phase = self.sequencer.phase if self.sequencer else None
        if isinstance(phase, Active):
            return phase.role.value + ("/gap" if phase.gap and not phase.gap.is_probed else "")
        if isinstance(phase, Aligning) and phase._marker:
            return "searching" if phase.marker_received else "marked"
        if isinstance(phase, Anchoring) and phase.is_looking:
            return "begun" if phase._begun else "foreign" if phase.foreign else "looking"
        return "new"

    def _count_transition(self, cause: str) -> None:
        before, after = self._before, self._phase()
        self.world.transitions[f"{before} -> {after} on {cause}" if before != after else f"{before} on {cause}"] += 1


class CheckedReserves(Reserves):
    """Tells the world when its listener leaves its place to others."""

    def __init__(self, listener: Listener, registry: ListenerRegistry) -> None:
        super().__init__(listener.world.listeners_max, registry.own)
        self._listener = listener

    def left(self) -> None:
        super().left()
        self._listener.world.check_leaving(self._listener)


class SimulatedCall:
    """A call in a thread: it happens at a later time, or, while calls are silent, never."""

    def __init__(self, listener: Listener, call: Callable[[], Any]) -> None:
        self._listener, self._call = listener, call
        self._due = listener.world.now + listener.world.rng.choice([1.0, 0.3, 0.05, 0.0])
        self._outcome: Any = None
        self._has_ended = False

    @property
    def is_done(self) -> bool:
        if self._listener.world.now < self._due or self._listener.calls_are_silent:
            return False
        if not self._has_ended:
            try:
                self._outcome = self._call()
            except StillWaiting:
                return False
            except (*SESSION_ERRORS, OSError, NoLongerWantedError) as error:
                self._outcome = error
            self._has_ended = True
        return True

    def result(self) -> Any:
        assert self.is_done, "the loop waits for a call"
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class SimulatedConnection:
    """A worker's connection to the feed: where it is, and the lines that have been sent and not read."""

    def __init__(self, after: EventId | None) -> None:
        self.cursor, self.lines = FeedCursor(after), list[bytes]()
        self.is_open = True


class SimulatedFeed:
    """As `listener.feed.FeedServer`.

    Args:
        check: is told what is fed.
    """

    def __init__(self, check: Callable[[list[bytes]], None]) -> None:
        self.connections: list[SimulatedConnection] = []
        self._check = check

    def connect(self, after: EventId | None) -> SimulatedConnection:
        self.connections.append(SimulatedConnection(after))
        return self.connections[-1]

    @property
    def has_workers(self) -> bool:
        return bool(self.connections)

    @property
    def blocked(self) -> list[Any]:
        return []

    def step(self, source: FeedSource | None) -> None:
        for connection in self.connections:
            while len(connection.lines) < MAX_UNREAD_LINES:
                lines, connection.cursor = connection.cursor.advance(source)
                connection.lines += lines
                self._check(lines)
                if not lines:
                    break
        if source:
            sent = [connection.cursor.next for connection in self.connections if connection.cursor.next]
            source.keep_from(min((at.sequence for at in sent if at.epoch == source.epoch), default=sys.maxsize))

    def close(self) -> None:
        for connection in self.connections:
            connection.is_open = False
        self.connections.clear()


class SimulatedAnswer:
    """An answer of Redis, on its way: Redis has performed the request, or failed, when it was sent."""

    def __init__(self, listener: Listener, perform: Callable[[], Any], request: Request | None = None) -> None:
        self._listener, self._request = listener, request
        self._world = listener.world
        self._due = listener.world.now + listener.world.rng.choice([0.3, 0.0, 0.0, 0.0])
        self._error: exceptions.RedisError | None = None
        try:
            self._answer = perform()
        except exceptions.RedisError as error:
            self._error = error

    @property
    def is_done(self) -> bool:
        return self._world.now >= self._due

    def result(self) -> Any:
        if self._error:
            raise self._error
        if self._request is not None and self._listener.forwarder._leftover is None:
            self._listener.answered(self._request, self._answer)
        return self._answer


class SimulatedStream:
    """As `listener.redis_stream.RedisStream`."""

    def __init__(self, listener: Listener, registry: ListenerRegistry) -> None:
        self._listener, self._registry = listener, registry

    def check_publish(self, at: float) -> None:
        self._listener.request(lambda _: None, is_write=False)

    def start(self, request: Request) -> SimulatedAnswer:
        return SimulatedAnswer(self._listener, lambda: self._answer(request), request)

    def _answer(self, request: Request) -> Answer:
        if isinstance(request, CheckOtherListeners):
            return self._registry.other_listener_alive()
        return self._listener.request(lambda redis: self._perform(redis, request), isinstance(request, Append))

    def _perform(self, redis: Redis, request: Request) -> Answer:
        match request:
            case ReadHead():
                return redis.head
            case ReadAfter(after, limit):
                return redis.after(after, limit)
            case ReadRecent(limit, until):
                entries = redis.entries if until is None else [each for each in redis.entries if each.id <= until]
                return entries[: -limit - 1 : -1]
            case ReadEntry(at):
                found = redis.after(EventId(at.epoch, at.sequence - 1), 1)
                return found[0].text if found and found[0].id == at else None
            case Append():
                self._listener.world.check_identities(request)
                appended = redis.append(request)
                self._listener.world.appended = max(self._listener.world.appended, appended.head)
                return appended
        raise AssertionError(request)
