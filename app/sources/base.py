"""Where a source of events delivers them."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from notifymux.event import Event, EventId


class GapReason(StrEnum):
    """Why continuity was broken, for people; the names are for metrics."""

    EPOCH = "a new epoch began"
    STREAM_LOST = "the stream was lost"
    EVENTS_MISSING = "events are missing in the stream"
    SESSION = "this worker's session is new"


class EventSink(Protocol):
    """Hears what a source hears; no method may wait."""

    def start(self, position: EventId | None, recent: Sequence[Event]) -> None:
        """Takes note that the source has found its place: what is delivered from now on comes after `position`.

        `recent` are the last events up to there, without a hole; none where events have no numbers.
        """

    def deliver(self, events: Sequence[Event]) -> None:
        """Takes the next events; those on the project's own channel have numbers too."""

    def gap(self, position: EventId | None, why: GapReason) -> None:
        """Takes note that continuity was broken: what is delivered from now on comes after `position`.

        The position is None where events have no numbers.
        """


class EventSource(Protocol):
    """A worker's source of events, in one of two modes."""

    @property
    def is_connected(self) -> bool:
        """Whether the server it hears is there and answers."""

    @property
    def outage(self) -> str | None:
        """Why it isn't, for people."""

    @property
    def position(self) -> EventId | None:
        """The last event delivered; None where events have no numbers, and before the first look."""

    @property
    def canary_at(self) -> float | None:
        """When a canary last passed, on the monotonic clock."""

    @property
    def behind(self) -> bool:
        """Whether it knows of events that it has not delivered yet."""

    @property
    def suppressed(self) -> int:
        """Events that came again and were not delivered again, so far."""

    @property
    def reconnects(self) -> int:
        """How often its server was away and came back."""

    async def run(self) -> None:
        """Delivers events until it is cancelled, whatever server goes away."""

    async def recall(self, after: EventId, until: EventId) -> list[Event] | None:
        """The events after one number up to another, from where they are kept; None if they can't be had in full."""
