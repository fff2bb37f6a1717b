"""What a forwarder has around it: the servers, the threads and the clocks, each real or simulated."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import psycopg

from app.core.cluster import Cluster
from app.core.incident_log import Incidents
from app.core.postgres_connect import LockWait
from listener.reserves import Look, Reserves
from listener.sequencer.control_messages import ControlMessage
from listener.sequencer.feed_cursor import FeedSource
from listener.sequencer.process_state import ProcessState
from listener.sequencer.redis_requests import Request
from listener.sequencer.sequencer import Sequencer
from listener.sequencer.snapshot import Snapshot
from listener.slot_state import SlotState
from notifymux.background_call import PendingCall


class NoLongerWantedError(Exception):
    """A session was not opened, because this listener has become a reserve meanwhile."""


class HasFileno(Protocol):
    """What has a descriptor to wait on."""

    def fileno(self) -> int:
        """The descriptor."""


class Health(Protocol):
    """Judges a session, as `app.core.session_health.SessionHealth`."""

    problem: str | None
    is_unreachable: bool
    lock_wait: LockWait

    def check(self, now: float, *, is_answered: bool, is_received: bool) -> None:
        """Raise if the session has to be replaced."""

    def session_delivers(self, now: float) -> None:
        """Record that something arrived."""


class Session(Protocol):
    """A PostgreSQL session, as `listener.postgres_session.PostgresSession` or `listener.wal.wal_session.WalSession`.

    All of it returns at once.
    """

    is_idle: bool
    cluster: Cluster | None
    slot_state: SlotState | None  # of the replication slot that it reads, if any

    def new_sequencer(self, session_id: str, process: ProcessState) -> Sequencer:
        """Return the sequencer for what this session delivers."""

    def new_health(self, logger: logging.Logger, start_call: Callable[..., Any]) -> Health:
        """Return what judges this session."""

    @property
    def sockets(self) -> Sequence[HasFileno]:
        """What to wait on until it is readable."""

    def notify(self, message: ControlMessage) -> None:
        """Send a control message; the session has to be idle."""

    def receive(self) -> Sequence[Any]:
        """Return what has arrived, for its sequencer."""

    def confirm(self, commit: int) -> None:
        """Let PostgreSQL forget what was committed before an LSN; 0 for nothing."""

    def take_outcome(self) -> psycopg.Error | Snapshot | None:
        """Return why the last query failed, or the snapshot that it returned, once."""

    def close(self) -> None:
        """End the session."""


class Stream(Protocol):
    """The stream in Redis, as `listener.redis_stream.RedisStream`."""

    def check_publish(self, at: float) -> None:
        """Publish a message that no client receives."""

    def start(self, request: Request) -> PendingCall:
        """Send a request; its result is the answer."""


class Registry(Protocol):
    """The registry in Redis, as `listener.registry.ListenerRegistry`."""

    def start_beat(self, fields: dict[str, str | int], incidents: Incidents) -> PendingCall:
        """Send a heartbeat."""

    def start_look(self, look: Look) -> PendingCall:
        """Look at other listeners; its result is a `Looked`."""

    def deregister(self) -> None:
        """Record that this process ended in an orderly way."""


class Feed(Protocol):
    """The feed of this pod's workers, as `listener.feed.FeedServer`."""

    @property
    def has_workers(self) -> bool:
        """Whether a worker is connected."""

    @property
    def blocked(self) -> Sequence[HasFileno]:
        """The workers that have to read before they can be sent more."""

    def step(self, source: FeedSource | None) -> None:
        """Send each worker what it is missing; `source` is None while nothing may be fed. It returns at once."""

    def close(self) -> None:
        """End it."""


class Environment(NamedTuple):
    """Everything around a forwarder.

    `connect` opens a session; it may block and is called by `start_call`, which returns at once. `waits_for` returns
    why that does not end while PostgreSQL answers (another listener reads the slot, or Redis is away); empty for none.
    `reserves` decides whether to connect.
    `monotonic` and `wall` are the clocks, in seconds. `new_session_id` returns an id unlike any other.
    """

    connect: Callable[[], Session]
    waits_for: Callable[[], str]
    start_call: Callable[[Callable[[], Any]], PendingCall]
    stream: Stream
    registry: Registry
    reserves: Reserves
    feed: Feed
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    new_session_id: Callable[[], str]
