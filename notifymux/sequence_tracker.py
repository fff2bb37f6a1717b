"""A follower's position in the stream (rule 13 of docs/numbering.md): every event once and in order, or a gap.

The stream is authoritative. Pub/sub delivers the next event early, and signals that there is something to read. This is
a state machine without I/O and without a clock; times are seconds on any monotonic clock.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from notifymux.event import Event, EventId
from notifymux.progress_timeout import POLL_SECONDS, TAKEOVER_TIMEOUT_SECONDS, ProgressTimeout

logger = logging.getLogger(__name__)

NOTHING = EventId(0, 0)  # before every event
_MAX_LEFT_EPOCHS = 16
_MAX_STRANGE_EPOCHS = 16
_STRANGE_READ_SECONDS = 1.0  # between two reads for epochs that the stream turned out not to have
_FOREIGN_READS = 3  # after so many reads in vain, an epoch is another environment's


class GapReason(StrEnum):
    """Why there is a gap. Values are for people, the members' names are labels in the metrics."""

    EPOCH = "a new epoch began"
    STREAM_LOST = "the stream goes on in an earlier epoch"
    EVENTS_MISSING = "events are missing in the stream"
    SESSION = "the session is new"


class Gap(NamedTuple):
    """Events before `position`, or the event there, may be missing."""

    position: EventId
    why: GapReason


class StreamEvent(NamedTuple):
    """One entry of the stream.

    An entry that a stranger wrote, which is no event with the entry's id, has `is_event` unset.
    """

    id: EventId
    event: Event
    is_event: bool = True


Outcome = Event | Gap


def runs(outcomes: Iterable[Outcome]) -> Iterator[list[Event] | Gap]:
    """Yield the events between two gaps as one list, and each gap."""
    events: list[Event] = []
    for outcome in outcomes:
        if isinstance(outcome, Gap):
            if events:
                yield events
            yield outcome
            events = []
        else:
            events.append(outcome)
    if events:
        yield events


class SequenceTracker:
    """Decides which events are delivered, of those that are published and those that are read from the stream."""

    def __init__(self) -> None:
        # The last event delivered, or left out by a gap; the stream is read after it. None before `start`.
        self.position: EventId | None = None
        self.needs_read = True
        self.suppressed = 0  # events that were received again and not delivered again
        self.is_fed = False  # while the feed delivers, an earlier epoch in the stream is no loss (rule 15)
        self._left: dict[int, int] = {}  # by epoch that was left: the last sequence delivered or left out
        self._timeout = ProgressTimeout(TAKEOVER_TIMEOUT_SECONDS)
        self._read_at = 0.0
        # A published epoch that is not known yet: a new one, whose begin is in the stream, or another environment's.
        self._strange_epoch: int | None = None
        self._strange_read_at = 0.0
        self._reads_in_vain: Counter[int] = Counter()  # by epoch that was published

    @property
    def hears_others(self) -> bool:
        """Whether events are published that are not in the stream: another environment publishes on the channel."""
        return any(reads >= _FOREIGN_READS for reads in self._reads_in_vain.values())

    def is_read_due(self, now: float) -> bool:
        """Whether the stream has to be read now."""
        is_strange_due = self._strange_epoch is not None and now >= self._strange_read_at
        return is_strange_due or (self.needs_read and now >= self._read_at)

    def request_read(self) -> None:
        """Have the stream read at once: after a subscription, or after a silence."""
        self.needs_read, self._read_at = True, 0.0

    def start(self, head: EventId | None) -> EventId:
        """Start as if everything up to an id had been delivered; return it.

        `head` is the stream's last id, or that of the last event that a follower has handled before it was restarted.
        None starts before every event.
        """
        self.position = head or NOTHING
        return self.position

    def on_published(self, events: Sequence[Event]) -> list[Event]:
        """Handle what was published and return what is delivered: only the next event, and events without an id.

        If a later event was published, the stream has to be read.
        """
        count = self._count_consecutive(events)
        if count == len(events):
            return list(events)
        return [*events[:count], *(event for event in events[count:] if self._accept(event))]

    def _count_consecutive(self, events: Sequence[Event]) -> int:
        """Move over the first events as far as they follow the position; return their number.

        This is the usual case: comparing texts is faster than parsing ids.
        """
        if self.position is None:
            return 0
        epoch, sequence = self.position
        prefix, following = f"{epoch}-", sequence + 1
        for event in events:
            if event.id != prefix + str(following):
                break
            following += 1
        if count := following - sequence - 1:
            at = EventId(epoch, sequence + count)
            _keep_parsed_id(events[count - 1], at)
            self._move_to(at)
        return count

    def _accept(self, event: Event) -> bool:
        """Return whether a published event is delivered; if so, move over it."""
        try:
            at = event.parsed_id
        except ValueError as error:
            logger.warning("what was published is not an event: %s", error)
            return False
        if at is None:
            return True
        if self.position is None:
            self.needs_read = True
        elif at == self.position.next:
            self._move_to(at)
            return True
        elif at.epoch != self.position.epoch and at.epoch not in self._left:
            self._strange_epoch = at.epoch
        elif at > self.position.next:
            self.needs_read = True
        else:
            self.suppressed += 1
            # An id of an earlier epoch is published after the stream was replaced.
            self.needs_read = self.needs_read or at.epoch < self.position.epoch
        return False

    def on_fed(self, events: Sequence[Event], *, is_alone: bool) -> list[Outcome]:
        """Handle what the feed brought, as `on_published`.

        `is_alone`: Redis has been away for so long that the feed is followed without it. Then what the feed does not
        have any more is a gap (rule 15).
        """
        first = events[0].parsed_id if is_alone else None
        gaps: list[Outcome] = []
        if first and self.position is None:
            self.start(_before(first))
        elif first and self.position and first > self.position.next:
            gaps = [self._leave_out(_before(first), GapReason.EVENTS_MISSING)]
        return [*gaps, *self.on_published(events)]

    def read(self, entries: list[StreamEvent], head: EventId | None, now: float) -> list[Outcome]:
        """Handle the stream's entries after the position, and return what is delivered.

        `head` is the stream's last id, and is needed only if there are no entries.
        """
        outcomes: list[Outcome] = []
        self.needs_read = False
        strange, self._strange_epoch = self._strange_epoch, None
        for entry in entries:
            if self.position is not None and entry.id <= self.position:
                continue  # it was fed while the stream was read
            due = self._read_entry(entry, now)
            if due is None:
                return outcomes
            outcomes += due
        if entries or head is None or not self._goes_on_elsewhere(head):
            self._timeout.restart()  # nothing is missing
        elif self.is_fed:
            self._timeout.pause()
        elif self._timed_out(now):
            outcomes.append(self._leave_out(head, GapReason.STREAM_LOST))
        if strange is not None:
            self._look_for(strange, now)
        return outcomes

    def interrupted(self) -> None:
        """Record that Redis did not answer: timeouts pause, and the stream has to be read."""
        self._timeout.pause()
        self.needs_read = True

    def _look_for(self, epoch: int, now: float) -> None:
        """Look whether a read found an epoch that was published: an append and its publication are one step of Redis.

        If not, messages like it cause one read a second at most: whoever shares the channel may publish any number.
        """
        if self.position is not None and epoch == self.position.epoch:
            self._reads_in_vain.pop(epoch, None)
        elif not self.needs_read:
            self._strange_read_at = now + _STRANGE_READ_SECONDS
            if len(self._reads_in_vain) >= _MAX_STRANGE_EPOCHS:
                self._reads_in_vain.clear()
            self._reads_in_vain[epoch] += 1

    def _goes_on_elsewhere(self, head: EventId) -> bool:
        """Return whether the stream ends, in an earlier epoch, with an event that was not delivered.

        A stream that is empty, or ends with an event that was delivered, lacks events that this follower has.
        """
        return self.position is not None and head < self.position and head.sequence > self._last_of(head.epoch)

    def _last_of(self, epoch: int) -> int:
        """The last sequence of an epoch that was delivered or left out; 0 if the epoch is not known."""
        if self.position and epoch == self.position.epoch:
            return self.position.sequence
        return self._left.get(epoch, 0)

    def _read_entry(self, entry: StreamEvent, now: float) -> list[Outcome] | None:
        """Move over an entry and return what is delivered; None while what should precede it is waited for."""
        at, position = entry.id, self.position or NOTHING
        if at == position.next:
            self._move_to(at)
            return [entry.event]
        if at.epoch > position.epoch and (at.sequence == 1 or at.epoch in self._left):
            if not entry.is_event:
                return []  # it begins no epoch, and stays only until the next append
            gap = self._leave_out(at if at.sequence == 1 else _before(at), GapReason.EPOCH)
        elif self._timed_out(now):
            gap = self._leave_out(_before(at), GapReason.EVENTS_MISSING)
        else:
            return None
        if at <= gap.position:
            return [gap]
        self._move_to(at)
        return [gap, entry.event]

    def _leave_out(self, until: EventId, why: GapReason) -> Gap:
        """Move to a place, or beyond it to what was delivered of its epoch, and return the gap before it."""
        at = EventId(until.epoch, max(until.sequence, self._last_of(until.epoch)))
        self._move_to(at)
        return Gap(at, why)

    def _move_to(self, at: EventId) -> None:
        if self.position and self.position.epoch not in (0, at.epoch):
            self._left.pop(at.epoch, None)
            self._left[self.position.epoch] = self.position.sequence
            if len(self._left) > _MAX_LEFT_EPOCHS:
                del self._left[next(iter(self._left))]
        self.position = at
        self._timeout.restart()

    def _timed_out(self, now: float) -> bool:
        """Return whether a listener has had the time to restore what is missing; if not, read again later."""
        if self._timeout.tick(now):
            return True
        self.needs_read, self._read_at = True, now + POLL_SECONDS
        return False


def _keep_parsed_id(event: Event, at: EventId) -> None:
    """Save an event's `parsed_id` from parsing: it is a cached property, whose value is kept under its name."""
    vars(event)["parsed_id"] = at


def _before(at: EventId) -> EventId:
    return EventId(at.epoch, at.sequence - 1)
