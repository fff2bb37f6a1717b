"""The phase in which every notification gets its id and is appended to the stream (rules 3 and 7 to 11)."""

import logging
from enum import Enum

import msgspec

from app.core.cluster import Cluster
from app.core.incident_log import Kind
from listener.sequencer.control_messages import ControlChannel, ReceivedControl, parse
from listener.sequencer.event_window import EventWindow
from listener.sequencer.process_state import BufferSize, ProcessState
from listener.sequencer.received import ReceivedNotification
from listener.sequencer.redis_requests import (
    Answer,
    Append,
    AppendResult,
    AppendStatus,
    ReadEntry,
    ReadHead,
    ReadRecent,
    Request,
    StreamEntry,
)
from listener.sequencer.transitions import Realign, SendBegin, Transition
from listener.sequencer.wal_place import place_of
from listener.sequencer.window_load import WindowLoad
from notifymux.event import EventId, Origin, decode, encode
from notifymux.progress_timeout import POLL_SECONDS, ProgressTimeout

logger = logging.getLogger(__name__)

STANDBY_DELAY_SECONDS = 0.25  # an event waits so long at a standby before it checks whether the primary appended it
BATCH_EVENTS, BATCH_BYTES = 512, 1 << 20  # of one append
REPLAY_EVENTS = 20_000


class Role(Enum):
    """Who appends at once (rule 8): the listener that appended last. Listeners agree on nothing else."""

    PRIMARY = "primary"
    STANDBY = "standby"


class StreamGap:
    """A gap between the stream's last entry and the buffer's first event (rule 9).

    Args:
        head: the stream's last entry in this epoch; None if it is empty or in an earlier epoch.
        probe: the token of a canary. When it has come back, every begin sent before it has been received.
        timeout: for another listener to fill the gap.
    """

    def __init__(self, head: EventId | None, probe: str, timeout: ProgressTimeout) -> None:
        self.head, self.probe, self.timeout = head, probe, timeout
        self.is_probed = False  # the probe has come back
        self.restored = 0  # events put back so far
        self._next_try = 0.0

    def is_due(self, now: float) -> bool:
        """Whether to try to fill it now."""
        return self.is_probed and now >= self._next_try

    def refused(self, head: EventId | None, now: float) -> bool:
        """Record that an append was refused again; return whether the timeout has expired, which then starts over."""
        self.head, self._next_try = head, now + POLL_SECONDS
        expired = self.timeout.tick(now)
        if expired:
            self.timeout.reset()
        return expired


class Active:
    """Assigns ids in one epoch.

    Args:
        process: this listener's.
        control: sends the probe.
        cluster: the session's PostgreSQL; None if it is not known.
        position: the last id so far.
        role: whether to append at once.
        load: whether to read the replay window from the stream first (rule 4).
        after: the place in the WAL of the event at `position`, if it has one.
    """

    def __init__(
        self,
        process: ProcessState,
        control: ControlChannel,
        cluster: Cluster | None,
        position: EventId,
        role: Role,
        *,
        load: bool,
        after: str = "",
    ) -> None:
        self._origin = Origin(process.fingerprint, str(cluster or ""))
        self.epoch, self.position, self.role = position.epoch, position, role
        self.buffer, self.replay_window = EventWindow(position.sequence + 1), EventWindow(position.sequence + 1)
        self.gap: StreamGap | None = None
        self._process, self._control, self._stats = process, control, process.stats
        limits = BufferSize(REPLAY_EVENTS, process.limits.bytes)
        self._load = WindowLoad(self.epoch, limits) if load else None  # until the replay window is read
        self._waiting_since = 0.0  # the time from which a standby waits for the primary
        self._is_overdue = False  # the primary did not append what has waited
        self._sent = self._in_doubt = 0  # up to which sequence an append was sent, and one that was not answered
        self._unchecked_canary: tuple[int, str] | None = None  # its sequence and its token (rule 11)
        self._confirmed = position.sequence  # up to which sequence the stream is known to have this epoch
        self._unfed = self.position.sequence + 1  # the first that a worker has not been fed
        self._after = after  # the place of the event before the buffer's first
        self._begin = 0  # the sequence of the last begin, also of one that was not taken (rule 14)

    @property
    def confirmed_place(self) -> str:
        """The place in the WAL of the last event that is known to be in the stream; empty if it has none."""
        return self._after

    @property
    def buffered(self) -> BufferSize:
        """How much is not known to be in the stream."""
        return BufferSize(len(self.buffer), self.buffer.bytes)

    def on_notification(self, received: ReceivedNotification, control: ReceivedControl | None, now: float) -> None:
        """Assign the next id to a notification (rule 3) and buffer the event."""
        self.position = EventId(self.epoch, self.position.sequence + 1)
        if control and control.begin is not None:
            self._begin = self.position.sequence
        if self.buffer.first == self.position.sequence:  # it is empty
            self._waiting_since = now
        # Control messages carry this listener's origin, so that a new listener can compare it (rule 6).
        origin = self._origin if control else None
        self.buffer.append(
            encode(received.channel, received.payload, received.at, self.position, origin, place=received.place)
        )
        if control and control.canary and self._control.is_own(control):
            self._canary_received(control.canary)

    def _canary_received(self, token: str) -> None:
        if self.gap and token == self.gap.probe:
            self.gap.is_probed = True
        elif self._unchecked_canary is None:
            self._unchecked_canary = (self.position.sequence, token)

    def on_overflow(self, now: float) -> Transition:
        """Drop the buffer, and count on (rule 10). If no other listener has its events, a begin announces the gap."""
        logger.error(
            "the buffer is full with %d events of %d bytes (BUFFER_EVENTS, BUFFER_BYTES): they are dropped, and unless "
            "another listener has them, clients will be told of a gap",
            *self.buffered,
        )
        self._stats.dropped += len(self.buffer)
        text = f"gave up {len(self.buffer)} events: the buffer was full"
        self._stats.incidents.add(Kind.OVERFLOW, text, now)
        next_sequence = self.position.sequence + 1
        self.buffer, self.replay_window = EventWindow(next_sequence), EventWindow(next_sequence)
        self._load, self._unchecked_canary, self._after = None, None, ""
        return None

    # The feed.

    def feed_range(self) -> range | None:
        """The sequences of the events that may be fed, without a gap; None while nothing may (rule 14)."""
        if self._confirmed < self._begin:
            return None
        window = self.replay_window
        first = window.first if window and window.next == self.buffer.first else self.buffer.first
        return range(first, self.position.sequence + 1)

    def feed_texts(self, start: int) -> list[bytes]:
        """Return texts from a sequence in `feed_range` on, not more than one batch."""
        window = self.buffer if start >= self.buffer.first else self.replay_window
        return window.batch(start, BATCH_EVENTS, BATCH_BYTES)

    def keep_from(self, sequence: int) -> None:
        """Remember what is fed from a sequence on, beyond what the stream may need, within the limits of the buffer."""
        self._unfed = sequence

    def to_redis(self, now: float) -> Request | None:
        """The next request, if any."""
        if self._load:
            return self._load.request
        if self.gap:
            return self._fill_gap(self.gap) if self.gap.is_due(now) else None
        if self._unchecked_canary and self._unchecked_canary[0] < self.buffer.first:
            return ReadEntry(EventId(self.epoch, self._unchecked_canary[0]))
        if not self.buffer:
            return None
        if self.role is Role.PRIMARY or self._is_overdue or self._process.draining:
            append = self._append(self.buffer)
            self._sent = append.first.sequence + len(append.texts) - 1
            return append
        return ReadHead() if now - self._waiting_since >= STANDBY_DELAY_SECONDS else None

    def _append(self, window: EventWindow, start: int | None = None, *, restore: bool = False) -> Append:
        start = window.first if start is None else start
        texts = window.batch(start, BATCH_EVENTS, BATCH_BYTES)
        return Append(EventId(self.epoch, start), texts, restore, self._after if window is self.buffer else "")

    def _fill_gap(self, gap: StreamGap) -> Append:
        """Restore from the replay window. If it does not reach the gap, try the buffer: others may have filled it."""
        window = self.replay_window
        start = window.first if gap.head is None else gap.head.sequence + 1
        if window and window.next == self.buffer.first and window.first <= start < window.next:
            return self._append(window, start, restore=True)
        return self._append(self.buffer)

    def on_redis_failure(self) -> None:
        """Redis did not answer: `to_redis` repeats the request, with the same ids (rule 12).

        It may have performed an append all the same, so what it has of it already is taken for this listener's own.
        """
        self._in_doubt = max(self._in_doubt, self._sent)
        if self.gap:
            self.gap.timeout.pause()

    def on_answer(self, request: Request, answer: Answer, now: float) -> Transition:
        """Process the answer to the last request."""
        match request, answer:
            case Append(), AppendResult():
                return self._appended(request, answer, now)
            case ReadHead(), None | EventId():
                return self._head_read(answer or EventId(0, 0), now)
            case ReadEntry(), None | bytes():
                return self._entry_read(request, answer)
            case ReadRecent(), list():
                return self._recent_read(self._load, request.limit, answer)
        raise TypeError(f"{type(answer).__name__} does not answer {type(request).__name__}")

    def _recent_read(self, load: WindowLoad | None, limit: int, newest_first: list[StreamEntry]) -> Transition:
        """Rule 4: fill the replay window with the stream's last events, and confirm those that are in the buffer."""
        if load is None:
            return None  # the buffer was full meanwhile
        load.read(limit, newest_first)
        if load.head and load.head.epoch > self.epoch:
            self._load = None
            return self._superseded(load.head)
        if load.is_complete:
            self._load = None
            if load.head and load.has_events:
                self._confirm(load.head)
                self.replay_window = load.window(self.buffer.first)
        return None

    def _head_read(self, head: EventId, now: float) -> Transition:
        """Rule 8: a standby checks whether what has waited is in the stream, and appends it if it is not."""
        if head.epoch > self.epoch:
            return self._superseded(head)
        if head.epoch == self.epoch and head.sequence >= self.buffer.first:
            self._stats.suppressed += self._confirm(head)
            self._waiting_since = now
        else:
            self._is_overdue = True
        return None

    def _entry_read(self, request: ReadEntry, text: bytes | None) -> Transition:
        """Rule 11: the entry under a canary's id must be that canary. An entry that was trimmed shows nothing."""
        canary = self._unchecked_canary
        if canary is None or canary[0] != request.id.sequence:
            return None  # the buffer was full meanwhile
        self._unchecked_canary = None
        if text is None or _control_in(text).canary == canary[1]:
            return None
        return SendBegin(f"the count differs from the stream's at {request.id}", is_error=True)

    def _appended(self, request: Append, answer: AppendResult, now: float) -> Transition:
        if answer.status is AppendStatus.SUPERSEDED:
            return self._superseded(answer.head)
        if answer.status is not AppendStatus.OK:
            return self._append_refused(answer, now)
        if self.gap and request.restore:
            self.gap.restored += answer.added
        else:
            self._update_role(request, answer, now)
        self._confirm(answer.head)
        self._is_overdue = False
        if self.gap:
            self.gap.head = answer.head
            if answer.head.sequence + 1 >= self.buffer.first:
                self._close_gap(self.gap, now)
        return None

    def _superseded(self, head: EventId) -> Transition:
        self._process.saw_epoch(head.epoch)
        return Realign("the stream has a later epoch")

    def _append_refused(self, answer: AppendResult, now: float) -> Transition:
        head = answer.head if answer.status is AppendStatus.GAP else None
        if self.gap is None:
            # Before anything is restored, a listener that was frozen must receive the begins of later epochs.
            self.gap = StreamGap(head, self._control.send_canary(), self._process.takeover_timeout())
        elif self.gap.refused(head, now):
            return SendBegin("events are missing between the stream and what this listener holds", is_error=True)
        return None

    def _close_gap(self, gap: StreamGap, now: float) -> None:
        if gap.restored:
            self._stats.restored += gap.restored
            text = f"put {gap.restored} events back into a stream that had lost them"
            self._stats.incidents.add(Kind.PUT_BACK, text, now)
        self.gap = None

    def _update_role(self, request: Append, answer: AppendResult, now: float) -> None:
        skipped = len(request.texts) - answer.added
        own = max(0, min(skipped, self._in_doubt - request.first.sequence + 1))
        self._stats.added += answer.added + own
        self._stats.suppressed += skipped - own
        if answer.added and self.role is Role.STANDBY:
            self._stats.failovers += 1
            self._stats.incidents.add(Kind.FAILOVER, f"became primary at {request.first}: nobody else appended", now)
        if answer.added or skipped > own:
            self.role = Role.PRIMARY if answer.added else Role.STANDBY
        added = range(request.first.sequence + skipped, request.first.sequence + len(request.texts))
        if self._unchecked_canary and self._unchecked_canary[0] in added:
            self._unchecked_canary = None  # an entry that this listener added has its own id

    def _confirm(self, head: EventId) -> int:
        """Move the events up to `head` from the buffer to the replay window; return how many were moved."""
        self._confirmed = max(self._confirmed, head.sequence)
        if self.replay_window.next != self.buffer.first:
            self.replay_window = EventWindow(self.buffer.first)
        moved = self.buffer.take(max(0, min(len(self.buffer), head.sequence + 1 - self.buffer.first)))
        self.replay_window.extend(moved)
        if moved:
            self._after = place_of(moved[-1])
        window, limits = self.replay_window, self._process.limits
        fed_beyond_replay = min(len(window) - REPLAY_EVENTS, self._unfed - window.first)
        window.take(max(0, len(window) - limits.events, fed_beyond_replay))
        while window.bytes > limits.bytes:
            window.take(1)
        return len(moved)


def _control_in(text: bytes) -> ReceivedControl:
    """The control message in an entry's text; one without fields if it is none, or a stranger's."""
    try:
        return parse(bytes(decode(text).payload))
    except msgspec.DecodeError:
        return ReceivedControl()
