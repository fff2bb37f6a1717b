"""PostgreSQL as far as a listener can see it: commits in one order, the notification lock, and sessions."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import psycopg

from app.core.canary import Canary
from app.core.cluster import Cluster
from app.core.listen_session import Notification
from app.core.postgres_connect import Inspection, LockWait
from app.core.session_health import SessionHealth
from listener.sequencer.control_messages import Begin, ControlMessage, Marker
from listener.sequencer.notify_sequencer import NotifySequencer
from listener.sequencer.process_state import ProcessState
from listener.slot_state import SlotState
from notifymux.event import MUX_CHANNEL

CHANNEL = "match_change"
EXTRA_CHANNEL = "players_change"
TCP_TIMEOUT_SECONDS = 6.0  # after which the kernel ends a connection whose path is cut


class Answer(NamedTuple):
    """The end of a query's answer: PostgreSQL sends it after the notifications of the query's transaction."""

    failure: psycopg.Error | None = None


class Transaction:
    """A transaction that notifies.

    Args:
        channel: of the notification.
        payload: None for a user's, which writes too, and gets its number when it commits.
        backend: the listener's session that waits for it; None for a user's.
    """

    def __init__(self, channel: str, payload: str | None, backend: Backend | None = None) -> None:
        self.channel, self.payload, self.backend = channel, payload, backend
        self.listens: frozenset[str] = frozenset()


class Backend:
    """A session that LISTENs, on the server's side."""

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.channels: frozenset[str] = frozenset()
        self.outbox: deque[Notification | Answer] = deque()  # on its way to the listener
        self.transaction: Transaction | None = None  # waits for the notification lock
        self.alive = True

    def answer(self, failure: psycopg.Error | None = None) -> None:
        self.transaction = None
        self.outbox.append(Answer(failure))


class Postgres:
    """One server. Its commits have one order, which is the same for every session that LISTENs.

    Whoever notifies takes a lock before the commit and holds it until the commit is complete. `pump` lets the
    transactions that wait for it commit one after another, in the order in which they came.
    """

    def __init__(self, timeline: int = 1, clock_ms: int = 1_000_000) -> None:
        self.cluster = Cluster(7, timeline)
        self.clock_ms = clock_ms
        self.up = True
        self.backends: list[Backend] = []
        self.committed = 0  # events of the users
        self.extra_events: set[int] = set()  # of these, those on EXTRA_CHANNEL
        self.standby_away = False  # commits that write wait for a synchronous standby
        self.stalled_until = 0.0  # a commit's flush takes until then
        self._waiting: deque[Transaction] = deque()  # the first one holds the lock

    def connect(self) -> Backend:
        backend = Backend(self)
        self.backends.append(backend)
        return backend

    def disconnect(self, backend: Backend, *, commits: bool = False) -> None:
        """End a session. Its transaction rolls back, or commits before the server notices that the client is gone."""
        backend.alive = False
        if backend in self.backends:
            self.backends.remove(backend)
        if backend.transaction in self._waiting and not commits:
            self._waiting.remove(backend.transaction)  # type: ignore[arg-type]

    def shut_down(self) -> None:
        """End all sessions. What waits for the lock, or for a standby, does not commit."""
        for backend in list(self.backends):
            self.disconnect(backend)
        self._waiting.clear()

    def promote(self) -> Postgres:
        """A standby of this server that becomes a primary. The old one may live on, but its users have gone."""
        self._waiting = deque(transaction for transaction in self._waiting if transaction.payload)
        self.standby_away = False
        promoted = Postgres(self.cluster.timeline + 1, self.clock_ms)
        promoted.committed, promoted.extra_events = self.committed, self.extra_events
        return promoted

    def _begin(self, channel: str, payload: str | None, backend: Backend | None = None) -> Transaction:
        return Transaction(channel, payload, backend)

    def commit_event(self, channel: str, now: float) -> None:
        """A user's commit."""
        self._waiting.append(self._begin(channel, None))
        self.pump(now)

    def notify(self, channel: str, payload: str, now: float) -> None:
        """A stranger's NOTIFY."""
        self._waiting.append(self._begin(channel, payload))
        self.pump(now)

    def execute(self, backend: Backend, message: ControlMessage, channels: frozenset[str], now: float) -> None:
        """Execute a listener's query; its answer is in the outbox once it has committed."""
        transaction = self._begin(MUX_CHANNEL, json.dumps(self._fields(message)), backend)
        transaction.listens = (channels if isinstance(message, Marker) else frozenset()) | {MUX_CHANNEL}
        backend.transaction = transaction
        self._waiting.append(transaction)
        self.pump(now)

    def cancel(self, backend: Backend) -> None:
        """pg_cancel_backend: a query that waits for the lock fails, and the session goes on."""
        if backend.transaction and backend.transaction in self._waiting:
            self._waiting.remove(backend.transaction)
            backend.answer(psycopg.errors.QueryCanceled("canceling statement due to user request"))

    def is_stalled(self, now: float) -> bool:
        """Whether a transaction waits for the lock, and does not get it."""
        if not self._waiting:
            return False
        return now < self.stalled_until or (self.standby_away and self._waiting[0].payload is None)

    def pump(self, now: float) -> None:
        while self._waiting and not self.is_stalled(now):
            self._commit(self._waiting.popleft())

    def inspect(self, backend: Backend) -> Inspection:
        """As `app.core.postgres_connect.inspect`: a backend is at work while its query is not answered."""
        return Inspection(backend.transaction is not None, LockWait(max(0, len(self._waiting) - 1), 0.0))

    def _commit(self, transaction: Transaction) -> None:
        backend = transaction.backend
        if backend:
            backend.channels |= transaction.listens
        payload = transaction.payload
        if payload is None:
            self.committed += 1
            payload = str(self.committed)
            if transaction.channel == EXTRA_CHANNEL:
                self.extra_events.add(self.committed)
        notification = Notification(transaction.channel, payload.encode())
        for listening in self.backends:
            if transaction.channel in listening.channels:
                listening.outbox.append(notification)
        if backend and backend.alive:
            backend.answer()

    def _fields(self, message: ControlMessage) -> dict[str, object]:
        match message:
            case Marker(token, fingerprint):
                return {"marker": token, "fingerprint": fingerprint}
            case Begin(token, fingerprint, floor, jitter, previous, why):
                epoch = max(self.clock_ms, floor) + jitter
                return {
                    "begin": epoch,
                    "floor": floor,
                    "by": token,
                    "fingerprint": fingerprint,
                    "previous": previous,
                    "why": why,
                }
            case Canary(canary=token):
                return {"canary": token}
        raise AssertionError(message)


class PostgresPath(Protocol):
    """What a session sees of its listener's path to PostgreSQL."""

    channels: frozenset[str]
    is_proxied: bool

    @property
    def now(self) -> float:
        """Monotonic seconds."""

    @property
    def is_cut(self) -> bool:
        """Whether one of the directions is cut."""

    def readable(self) -> int:
        """How much of what PostgreSQL has sent has arrived."""

    def check_sent(self, message: ControlMessage) -> None:
        """Check what the listener sends."""

    def check_reachable(self) -> None:
        """Raise if a new connection fails."""


class SimulatedSession:
    """A listener's side of a session; as `listener.postgres_session.PostgresSession`."""

    def __init__(self, path: PostgresPath, backend: Backend) -> None:
        self._path, self.backend = path, backend
        self.is_idle = True
        self.cluster: Cluster | None = backend.server.cluster
        self.slot_state: SlotState | None = None
        self.delivered = 0  # notifications, for the counts of transitions
        self._unsent: ControlMessage | None = None  # on its way to PostgreSQL
        self._failure: psycopg.Error | None = None
        self._cut_since: float | None = None

    @property
    def sockets(self) -> list[Any]:
        raise NotImplementedError

    def new_sequencer(self, session_id: str, process: ProcessState) -> NotifySequencer:
        return NotifySequencer(session_id, process, self.cluster)

    def new_health(self, logger: logging.Logger, start_call: Callable[..., Any]) -> SessionHealth:
        return SessionHealth(self.inspect, logger, start_call)

    def confirm(self, commit: int) -> None:
        """PostgreSQL remembers no notification."""

    def notify(self, message: ControlMessage) -> None:
        assert self.is_idle, "a query is sent before the last one is answered"
        self._path.check_sent(message)
        self.is_idle, self._unsent = False, message

    def transmit(self, now: float) -> None:
        """Let what was sent arrive."""
        if self._unsent and self.backend.alive and self.backend.server.up:
            message, self._unsent = self._unsent, None
            self.backend.server.execute(self.backend, message, self._path.channels, now)

    def receive(self) -> list[Notification]:
        self._check_alive()
        received: list[Notification] = []
        outbox = self.backend.outbox
        for _ in range(self._path.readable()):
            if not outbox:
                break
            match outbox.popleft():
                case Answer(failure):
                    self.is_idle, self._failure = True, failure
                case Notification() as notification:
                    received.append(notification)
        self.delivered += len(received)
        return received

    def _check_alive(self) -> None:
        if not self._path.is_cut:
            self._cut_since = None
            if not self.backend.alive:
                raise psycopg.OperationalError("terminating connection")
        elif self._cut_since is None:
            self._cut_since = self._path.now
        elif self._path.now - self._cut_since > TCP_TIMEOUT_SECONDS and not self._path.is_proxied:
            raise psycopg.OperationalError("could not receive data from server: Connection timed out")

    def take_outcome(self) -> psycopg.Error | None:
        failure, self._failure = self._failure, None
        return failure

    def inspect(self) -> Inspection:
        self._path.check_reachable()
        return self.backend.server.inspect(self.backend)

    def close(self) -> None:
        """The server's side ends too: with a path that is cut, when the next session replaces it."""
        if not self._path.is_cut:
            self.backend.server.disconnect(self.backend)
