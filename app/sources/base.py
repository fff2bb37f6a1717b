"""The interfaces between a source of events and the sink that it delivers to."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from app.core.postgres_connect import LockWait
from notifymux.event import Event, EventId
from notifymux.sequence_tracker import GapReason
from notifymux.stream_reader import Take


class EventSink(Protocol):
    """Receives the events of a source. A source calls these methods where it reads, so none may block."""

    def start(self, position: EventId | None, recent: Sequence[Event]) -> None:
        """Handle the source's start: events after `position` will be delivered.

        `recent` are the last events up to there, without a gap. In PostgreSQL mode, where events have no ids, the
        position is None and `recent` is empty.
        """

    def deliver(self, events: Sequence[Event]) -> None:
        """Handle the next events, in order. Those on the project's own channel are among them."""

    def gap(self, position: EventId | None, why: GapReason) -> None:
        """Handle a gap: events before `position` may be missing, those after it will be delivered.

        The position is None where events have no ids.
        """


class SourceStatus(NamedTuple):
    """The state of a source."""

    is_connected: bool  # whether its server is connected and answers
    outage: str | None  # why not; None before the first attempt and while it is connected
    reconnects: int  # outages of the server that ended
    position: EventId | None = None  # the last event delivered; None where events have no ids, and before the start
    is_behind: bool = False  # whether it knows of events that it has not delivered yet
    suppressed: int = 0  # events that were received again and not delivered again
    canary_at: float | None = None  # when the last canary was received, on the monotonic clock
    stall: str | None = None  # why its server does not answer, where that is no reason to connect anew
    is_fed: bool = False  # whether events come by the feed of this pod's listener
    is_stream_behind: bool = False  # whether the stream lacks what was fed, so that other pods do not hear it
    lock_wait: LockWait = LockWait()  # sessions that wait for the notification lock, as the source has last seen them


class EventSource(Protocol):
    """A worker's source of events."""

    def status(self) -> SourceStatus:
        """Return the current state."""

    async def run(self) -> None:
        """Deliver events until cancelled. Servers that are away are waited for."""

    async def read_range(self, after: EventId, until: EventId, take: Take) -> bool:
        """Hand over the stored events after one id up to another of the same epoch, in parts.

        Return False, with some of them handed over, if any is missing, or if `take` wants no more.
        """
