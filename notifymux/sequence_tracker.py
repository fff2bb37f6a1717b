"""A follower's position in the stream (rule 13 of docs/numbering.md): every event once and in order, or a gap.

The stream is authoritative. Pub/sub delivers the next event early, and signals that there is something to read. This is
a state machine without I/O and without a clock; times are seconds on any monotonic clock.
"""

import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from notifymux.event import Event, EventId
from notifymux.progress_timeout import POLL_SECONDS, TAKEOVER_TIMEOUT_SECONDS, ProgressTimeout

logger = logging.getLogger(__name__)

NOTHING = EventId(0, 0)  # before every event
_MAX_PAST_EPOCHS = 16
_MAX_STRANGE_EPOCHS = 16
_STRANGE_READ_SECONDS = 1.0  # between two reads for epochs that the stream turned out not to have
_FOREIGN_READS = 3  # after so many reads in vain, an epoch is another environment's


class GapReason(StrEnum):
    """Why there is a gap. Values are for people, the members' names are labels in the metrics."""

    EPOCH = "a new epoch began"
    STREAM_LOST = "the stream was lost"
    EVENTS_MISSING = "events are missing in the stream"
    SESSION = "the session is new"


class Gap(NamedTuple):
    """Events before `position` may be missing.

    The position is None while the stream is behind what was delivered: an id names no place in it by which to resume.
    """

    position: EventId | None
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
        # The stream is read after this id; None before `start`. It is that of the last event delivered, or a lower one
        # while an older copy of the stream is read, which has taken the stream's place.
        self.position: EventId | None = None
        self.needs_read = True
        self.suppressed = 0  # events that were received again and not delivered again
        # While the feed delivers, a position ahead of the stream's last entry is no loss (rule 15).
        self.is_fed = False
        self._delivered = NOTHING  # the last event delivered
        self._past_epochs: deque[int] = deque(maxlen=_MAX_PAST_EPOCHS)
        self._timeout = ProgressTimeout(TAKEOVER_TIMEOUT_SECONDS)
        self._restored = NOTHING  # how far a stream is that is behind what was delivered
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
        self.position = self._delivered = head or NOTHING
        return self.position

    def on_published(self, events: Sequence[Event]) -> list[Event]:
        """Handle what was published and return what is delivered: only the next event, and events without an id.

        If a later event was published, the stream has to be read.
        """
        count = self._count_consecutive(events)
        return [*events[:count], *(event for event in events[count:] if self._accept(event))]

    def _count_consecutive(self, events: Sequence[Event]) -> int:
        """Move over the first events as far as they follow the position; return their number.

        This is the usual case: comparing texts is faster than parsing ids.
        """
        if self.position is None or self.position != self._delivered:
            return 0
        epoch, sequence = self.position
        count = 0
        for event in events:
            if event.id != f"{epoch}-{sequence + count + 1}":
                break
            count += 1
        if count:
            self._move_to(EventId(epoch, sequence + count))
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
        elif at == self.position.next and not self._was_delivered(at):
            self._move_to(at)
            return True
        elif at.epoch not in {self.position.epoch, self._delivered.epoch, *self._past_epochs}:
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
        first = events[0].parsed_id
        if is_alone and first and first > self._delivered and (self.position is None or first > self.position.next):
            before = EventId(first.epoch, first.sequence - 1)
            if self.position is None:
                self.position = self._delivered = before
            else:
                self._move_to(before)
                return [Gap(before, GapReason.EVENTS_MISSING), *self.on_published(events)]
        return [*self.on_published(events)]

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
        is_behind = not entries and (head or NOTHING) < (self.position or NOTHING)
        if is_behind and self.is_fed:
            self._timeout.pause()
        elif is_behind and self._is_lost(head, now):
            self.position = head or NOTHING
            outcomes.append(Gap(None, GapReason.STREAM_LOST))
        if not is_behind:
            self._restored = NOTHING
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

    def _read_entry(self, entry: StreamEvent, now: float) -> list[Outcome] | None:
        """Move over an entry and return what is delivered; None while what should precede it is waited for."""
        at, position = entry.id, self.position or NOTHING
        outcomes: list[Outcome]
        if self._was_delivered(at):
            self.suppressed += 1
            self.position = at
            return []
        if at == position.next:
            outcomes = [entry.event]
        elif at.epoch > position.epoch and at.sequence == 1:
            if not entry.is_event:
                return []  # it begins no epoch, and stays only until the next append
            outcomes = [Gap(at, GapReason.EPOCH)]
        elif self._timed_out(now):
            outcomes = [Gap(EventId(at.epoch, at.sequence - 1), GapReason.EVENTS_MISSING), entry.event]
        else:
            return None
        self._move_to(at)
        return outcomes

    def _move_to(self, at: EventId) -> None:
        if self._delivered.epoch not in (0, at.epoch):
            self._past_epochs.append(self._delivered.epoch)
        self.position = self._delivered = at
        self._timeout = ProgressTimeout(TAKEOVER_TIMEOUT_SECONDS)

    def _was_delivered(self, at: EventId) -> bool:
        """Return whether an event was delivered or skipped before. It is read again if the stream was replaced."""
        return at.epoch in self._past_epochs or (at.epoch == self._delivered.epoch and at <= self._delivered)

    def _is_lost(self, head: EventId | None, now: float) -> bool:
        """Return whether a stream that is behind what was delivered stays so; one that is being restored does not."""
        if head and self.position and head.epoch == self.position.epoch and head > self._restored:
            self._restored = head
            self._timeout = ProgressTimeout(TAKEOVER_TIMEOUT_SECONDS)
        return self._timed_out(now)

    def _timed_out(self, now: float) -> bool:
        """Return whether a listener has had the time to restore what is missing; if not, read again later."""
        if self._timeout.tick(now):
            self._timeout = ProgressTimeout(TAKEOVER_TIMEOUT_SECONDS)
            return True
        self.needs_read, self._read_at = True, now + POLL_SECONDS
        return False
