"""An aligned listener: every event's id, what waits to be appended, and what is known to be (rules 3 and 7 to 11)."""

from enum import Enum
from typing import NamedTuple

from app.core.config import MUX_CHANNEL
from app.core.incident_log import Kind
from app.core.progress_timeout import POLL_SECONDS, ProgressTimeout
from listener.sequencer.aligning import ReceivedNotification
from listener.sequencer.control_messages import parse
from listener.sequencer.event_window import EventWindow
from listener.sequencer.redis_requests import (
    Append,
    AppendResult,
    AppendStatus,
    ReadEntry,
    ReadHead,
    ReadRecent,
    Request,
    StreamEntry,
)
from listener.sequencer.transitions import BeginEpoch, Realign, Transition
from listener.stats import ListenerStats
from notifymux.event import EventId, decode, encode

STANDBY_DELAY = 0.25  # seconds an event waits at a standby before it looks whether the primary appended it
BATCH_EVENTS, BATCH_BYTES = 512, 1 << 20  # of one script call
MEMORY_EVENTS = 20_000


class Role(Enum):
    """Who appends at once (rule 8): who last appended something. Nothing else is agreed."""

    PRIMARY = "primary"
    STANDBY = "standby"


class StreamGap(NamedTuple):
    """The stream ends before the buffer begins; `head` is None where it is empty or of an earlier epoch."""

    head: EventId | None
    probe: str  # the canary whose return proves that every begin before it was heard


class Active:
    """The count in one epoch.

    Args:
        at: the last event counted; the next one heard follows it.
        fingerprint: this listener's, written into our own messages so that a newcomer sees by whose count they go.
        role: whether to append at once.
        load: whether to read the memory from the stream first (rule 4).
        memory_bytes: the memory's bound.
        bound: seconds to wait for somebody who can close a hole.
        tally: counts what becomes of events.
    """

    def __init__(
        self,
        at: EventId,
        fingerprint: str,
        role: Role,
        *,
        load: bool,
        memory_bytes: int,
        bound: float,
        tally: ListenerStats,
    ) -> None:
        self.epoch, self.sequence = at
        self.role = role
        self.buffer, self.memory = EventWindow(at.sequence + 1), EventWindow(at.sequence + 1)
        self.leaving = False
        self._tally = tally
        self._fingerprint, self._memory_bytes, self._bound = fingerprint, memory_bytes, bound
        self._load = load
        self._waiting_since = 0.0
        self._overdue = False
        self._canary: tuple[int, str] | None = None  # one whose entry is to be compared (rule 11)
        self._hole: StreamGap | None = None
        self._restored = 0  # events put back into it
        self._probed = False
        self._patience = ProgressTimeout(bound)
        self._due = 0.0

    def number(self, heard: ReceivedNotification, now: float) -> None:
        """Counts one notification (rule 3) and buffers it under its id."""
        self.sequence += 1
        if not self.buffer:
            self._waiting_since = now
        by = self._fingerprint if heard.channel == MUX_CHANNEL else ""
        self.buffer.append(encode(heard.channel, heard.payload, heard.at, EventId(self.epoch, self.sequence), by))

    def canary_came_back(self, token: str) -> None:
        """Notes that the notification just numbered is this listener's own canary."""
        if self._hole and token == self._hole.probe:
            self._probed = True
        elif self._canary is None:
            self._canary = (self.sequence, token)

    def to_redis(self, now: float) -> Request | None:
        """The next request, if any."""
        if self._load:
            return ReadRecent(MEMORY_EVENTS)
        if self._hole:
            return self._close(self._hole) if self._probed and now >= self._due else None
        if self._canary and self._canary[0] < self.buffer.first:
            return ReadEntry(EventId(self.epoch, self._canary[0]))
        if not self.buffer:
            return None
        if self.role is Role.PRIMARY or self._overdue or self.leaving:
            return self._append(self.buffer)
        return ReadHead() if now - self._waiting_since >= STANDBY_DELAY else None

    def redis_failed(self) -> None:
        """Redis did not answer: no bound runs."""
        self._patience.interrupted()

    def _append(self, window: EventWindow, start: int | None = None, *, restore: bool = False) -> Append:
        start = window.first if start is None else start
        return Append(EventId(self.epoch, start), window.batch(start, BATCH_EVENTS, BATCH_BYTES), restore)

    def loaded(self, newest_first: list[StreamEntry]) -> Transition:
        """Rule 4: the stream's last events are this listener's memory; what the stream has, the buffer needn't."""
        self._load = False
        head = newest_first[0].id if newest_first else EventId(0, 0)
        if head.epoch > self.epoch:
            return Realign("the stream has a later epoch")
        run: list[bytes] = []
        for entry in newest_first:
            if entry.id != (self.epoch, head.sequence - len(run)):
                break
            run.append(entry.text)
        if run:
            self._settle(head)
            self.memory = EventWindow(head.sequence - len(run) + 1)
            for text in reversed(run):
                if self.memory.next < self.buffer.first:  # the stream may be ahead of what was heard
                    self.memory.append(text)
        return None

    def head_read(self, head: EventId, now: float) -> Transition:
        """Rule 8: a standby looks whether what has waited is in the stream, and appends it if it is not."""
        if head.epoch > self.epoch:
            return Realign("the stream has a later epoch")
        if head.epoch == self.epoch and head.sequence >= self.buffer.first:
            self._tally.suppressed += self._settle(head)
            self._waiting_since = now
        else:
            self._overdue = True
        return None

    def entry_read(self, request: ReadEntry, text: bytes | None) -> Transition:
        """Rule 11: the entry at a canary's computed id must be that canary; no entry (trimmed) shows nothing."""
        canary, self._canary = self._canary, None
        if text is None or canary is None or parse(bytes(decode(text).payload)).canary == canary[1]:
            return None
        return BeginEpoch(f"the count differs from the stream's at {request.id}", loudly=True)

    def appended(self, request: Append, answer: AppendResult, probe: str, now: float) -> Transition:
        """Takes in an append's answer; `probe` is the token of a canary that is sent if there is a hole."""
        if answer.status is AppendStatus.SUPERSEDED:
            return Realign("the stream has a later epoch")
        if answer.status is not AppendStatus.OK:
            return self._found_hole(answer, probe, now)
        if request.restore:
            self._restored += answer.added
        else:
            self._take_role(request, answer, now)
        self._settle(answer.head)
        self._overdue = False
        if self._hole and answer.head.sequence + 1 >= self.buffer.first:
            self._close_hole(now)
        elif self._hole:
            self._hole = self._hole._replace(head=answer.head)
        return None

    def _take_role(self, request: Append, answer: AppendResult, now: float) -> None:
        self._tally.added += answer.added
        skipped = len(request.texts) - answer.added
        self._tally.suppressed += skipped
        if answer.added and self.role is Role.STANDBY:
            self._tally.failovers += 1
            self._tally.incidents.add(Kind.FAILOVER, f"became primary at {request.first}: nobody else appended", now)
        self.role = Role.PRIMARY if answer.added else Role.STANDBY
        own = range(request.first.sequence + skipped, request.first.sequence + len(request.texts))
        if self._canary and self._canary[0] in own:
            self._canary = None

    def _settle(self, head: EventId) -> int:
        """Moves what is in the stream from the buffer to the memory; how much."""
        if self.memory.next != self.buffer.first:
            self.memory = EventWindow(self.buffer.first)
        moved = 0
        while self.buffer and self.buffer.first <= head.sequence:
            self.memory.append(self.buffer.pop())
            moved += 1
        while len(self.memory) > MEMORY_EVENTS or self.memory.bytes > self._memory_bytes:
            self.memory.pop()
        return moved

    # A hole between the stream and the buffer (rule 9).

    def _found_hole(self, answer: AppendResult, probe: str, now: float) -> Transition:
        head = answer.head if answer.status is AppendStatus.GAP else None
        if self._hole is None:
            # A frozen listener hears of later epochs first.
            self._hole, self._probed, self._patience = StreamGap(head, probe), False, ProgressTimeout(self._bound)
            return None
        self._hole = self._hole._replace(head=head)
        self._due = now + POLL_SECONDS
        if self._patience.answered(now):
            self._patience.reset()
            return BeginEpoch("events are missing between the stream and what this listener holds", loudly=True)
        return None

    def _close_hole(self, now: float) -> None:
        if self._restored:
            self._tally.restored += self._restored
            text = f"put {self._restored} events back into a stream that had lost them"
            self._tally.incidents.add(Kind.PUT_BACK, text, now)
        self._hole, self._restored = None, 0

    @property
    def probe(self) -> str | None:
        """The token of the canary to send, while its round trip is wanted."""
        return self._hole.probe if self._hole and not self._probed else None

    def _close(self, hole: StreamGap) -> Append:
        """Puts the memory back in chunks, or, where it doesn't reach, looks whether somebody else did."""
        memory = self.memory
        start = memory.first if hole.head is None else hole.head.sequence + 1
        if memory and memory.next == self.buffer.first and memory.first <= start < memory.next:
            return self._append(memory, start, restore=True)
        return self._append(self.buffer)
