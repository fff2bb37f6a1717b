"""A worker's place in the stream (rule 13): the stream is the truth, pub/sub the prompt.

A state machine without sockets and without a clock, as the listener's numbering is. Times are seconds on any monotonic
clock.
"""

import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from app.core.progress_timeout import POLL_SECONDS, TAKEOVER_TIMEOUT_SECONDS, ProgressTimeout
from app.sources.base import GapReason
from notifymux.event import Event, EventId

logger = logging.getLogger(__name__)

NOTHING = EventId(0, 0)  # before every event


class Gap(NamedTuple):
    """Continuity was broken; what follows comes after `position`."""

    position: EventId
    why: GapReason


class StreamEvent(NamedTuple):
    """One entry of the stream."""

    id: EventId
    event: Event


Outcome = Event | Gap


class SequenceTracker:
    """Delivers every event once and in order, or says that there is a gap."""

    def __init__(self) -> None:
        self.position: EventId | None = None
        self.behind = True  # the stream is to be read
        self.suppressed = 0
        self._delivered = NOTHING  # the last event delivered, wherever the stream is now
        self._left: deque[int] = deque(maxlen=16)  # the epochs before it
        self._patience = ProgressTimeout(TAKEOVER_TIMEOUT_SECONDS)
        self._due = 0.0

    def due(self, now: float) -> bool:
        """Whether the stream is to be read now."""
        return self.behind and now >= self._due

    def look(self) -> None:
        """Has the stream read at once: after a subscription, and when it has been silent for too long."""
        self.behind, self._due = True, 0.0

    def start(self, head: EventId | None) -> EventId:
        """Takes the stream's head, which it returns as the position, as the place to go on from."""
        self.position = head or NOTHING
        return self.position

    def prompt(self, events: Sequence[Event]) -> list[Event]:
        """Takes in what was published. Only the next event is delivered; after a jump the stream has to be read."""
        in_turn = self._in_turn(events)
        return [*events[:in_turn], *(event for event in events[in_turn:] if self._takes(event))]

    def _in_turn(self, events: Sequence[Event]) -> int:
        """How many of the first events just follow the position, which it moves behind them."""
        if self.position is None or self.position != self._delivered:
            return 0
        epoch, sequence = self.position
        count = 0
        for event in events:
            if event.id != f"{epoch}-{sequence + count + 1}":
                break
            count += 1
        if count:
            self._move(EventId(epoch, sequence + count))
        return count

    def _takes(self, event: Event) -> bool:
        """Whether it is to be delivered; if it has a number, the position is behind it then."""
        if event.id is None:
            return True
        try:
            at = EventId.parse(event.id)
        except ValueError as error:
            logger.warning("what was published is not an event: %s", error)
            return False
        if self.position is None or at > _after(self.position):
            self.behind = True
            return False
        if at <= self.position or self._is_old(at):
            self.suppressed += 1
            self.behind = self.behind or at.epoch < self.position.epoch  # has the stream been replaced?
            return False
        self._move(at)
        return True

    def read(self, entries: list[StreamEvent], head: EventId | None, now: float) -> list[Outcome]:
        """Takes in what the stream holds after the position; where that is nothing, `head` is its last id."""
        outcomes: list[Outcome] = []
        self.behind = False
        for entry in entries:
            if not self._take(entry, outcomes, now):
                return outcomes
        if not entries and (head or NOTHING) < (self.position or NOTHING) and self._give_up(now):
            self.position = head or NOTHING
            outcomes.append(Gap(self.position, GapReason.STREAM_LOST))
        return outcomes

    def interrupted(self) -> None:
        """Notes that Redis did not answer: no bound runs, and the stream has to be read."""
        self._patience.pause()
        self.behind = True

    def _take(self, entry: StreamEvent, outcomes: list[Outcome], now: float) -> bool:
        """Moves on over one entry, unless it has to wait for what should be before it."""
        position = self.position or NOTHING
        if self._is_old(entry.id):
            self.suppressed += 1
            self.position = entry.id
            return True
        if entry.id == _after(position):
            outcomes.append(entry.event)
        elif entry.id.epoch > position.epoch and entry.id.sequence == 1:
            outcomes.append(Gap(entry.id, GapReason.EPOCH))
        elif self._give_up(now):
            outcomes.append(Gap(EventId(entry.id.epoch, entry.id.sequence - 1), GapReason.EVENTS_MISSING))
            outcomes.append(entry.event)
        else:
            return False
        self._move(entry.id)
        return True

    def _move(self, to: EventId) -> None:
        if self._delivered.epoch not in (0, to.epoch):
            self._left.append(self._delivered.epoch)
        self.position = self._delivered = to
        self._patience = ProgressTimeout(TAKEOVER_TIMEOUT_SECONDS)

    def _is_old(self, at: EventId) -> bool:
        """Whether it was delivered, or given up, before the stream was replaced by an older copy or put back."""
        return at.epoch in self._left or (at.epoch == self._delivered.epoch and at <= self._delivered)

    def _give_up(self, now: float) -> bool:
        """Waits one bound for a listener to put back what is missing."""
        if self._patience.tick(now):
            self._patience = ProgressTimeout(TAKEOVER_TIMEOUT_SECONDS)
            return True
        self.behind, self._due = True, now + POLL_SECONDS
        return False


def _after(position: EventId) -> EventId:
    return EventId(position.epoch, position.sequence + 1)
