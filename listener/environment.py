"""What a forwarder has around it: the servers, the threads and the clocks, each real or simulated."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import psycopg

from app.core.cluster import Cluster
from app.core.incident_log import Incidents
from app.core.listen_session import Notification
from app.core.postgres_connect import Inspection
from listener.sequencer.control_messages import ControlMessage
from listener.sequencer.feed_cursor import FeedSource
from listener.sequencer.redis_requests import Request
from notifymux.background_call import PendingCall


class Session(Protocol):
    """A PostgreSQL session, as `listener.postgres_session.PostgresSession`. All but `inspect` return at once."""

    is_idle: bool
    cluster: Cluster | None

    def fileno(self) -> int:
        """The socket, to wait on."""

    def notify(self, message: ControlMessage) -> None:
        """Send a control message; the session has to be idle."""

    def receive(self) -> list[Notification]:
        """Return what has arrived."""

    def take_failure(self) -> psycopg.Error | None:
        """Return why the last query failed, once."""

    def inspect(self) -> Inspection:
        """Look at the session from outside. It blocks."""

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

    def deregister(self) -> None:
        """Record that this process ended in an orderly way."""


class HasFileno(Protocol):
    """What has a descriptor to wait on."""

    def fileno(self) -> int:
        """The descriptor."""


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

    `connect` opens a session; it may block and is called by `start_call`, which returns at once. `monotonic` and `wall`
    are the clocks, in seconds. `new_session_id` returns an id unlike any other.
    """

    connect: Callable[[], Session]
    start_call: Callable[[Callable[[], Any]], PendingCall]
    stream: Stream
    registry: Registry
    feed: Feed
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    new_session_id: Callable[[], str]
