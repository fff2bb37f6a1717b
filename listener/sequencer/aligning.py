"""From a marker to a place in the stream, or to the certainty that nobody is there (rules 2, 4, 5 and 6)."""

from typing import NamedTuple

from app.core.config import MUX_CHANNEL
from app.core.progress_timeout import POLL_SECONDS, TAKEOVER_TIMEOUT_SECONDS, ProgressTimeout
from listener.sequencer.control_messages import parse
from listener.sequencer.redis_requests import CheckOtherListeners, ReadAfter, ReadHead, StreamEntry
from listener.sequencer.transitions import BeginEpoch, MarkerFound, Realign, Transition
from notifymux.event import EventId, decode

SCAN_EVENTS = 1000  # of one read


class ReceivedNotification(NamedTuple):
    """A notification as the numbering is told of it: `payload` is JSON, `at` the wall clock in Unix seconds."""

    channel: str
    payload: bytes
    at: float


class Aligning:
    """One marker's fate.

    Args:
        marker: its token.
        fingerprint: this listener's.
        head: the stream's, as it was before the marker was sent, so that the marker can only be after it (rule 2).
        bound: seconds of silence after which nobody is there.
    """

    def __init__(self, marker: str, fingerprint: str, head: EventId, bound: float) -> None:
        self.heard_marker = False
        self.early: list[
            tuple[ReceivedNotification, float]
        ] = []  # since the marker, not numbered yet; bounded by Numbering
        self.early_bytes = 0
        self.heard_begin = False
        self.foreign: object = False  # the one at work counts by another fingerprint (rule 6)
        self.cursor = head
        self._marker, self._fingerprint = marker, fingerprint
        self._still, self._whole = ProgressTimeout(bound), ProgressTimeout(bound)
        self._moved = False
        self._turn = 0  # in the cycle of looks
        self._due = 0.0

    def hear(self, heard: ReceivedNotification, now: float) -> None:
        """Keeps a notification that was heard after the marker."""
        self.early.append((heard, now))
        self.early_bytes += len(heard.payload)

    def mark_anew(self, marker: str) -> None:
        """Goes on with another marker, when what was heard since the last one can't be held (rule 10).

        The bounds run on, or a busy database would keep a newcomer from ever beginning.
        """
        self._marker, self.heard_marker = marker, False
        self.early, self.early_bytes, self.foreign = [], 0, False

    def to_redis(self, now: float) -> ReadAfter | ReadHead | CheckOtherListeners | None:
        """The next look: into the stream, at its head, and into the registry, in turn."""
        if not self.heard_marker or now < self._due:
            return None
        return (ReadAfter(self.cursor, SCAN_EVENTS), ReadHead(), CheckOtherListeners())[self._turn]

    def head_read(self, head: EventId) -> None:
        """A stream that was wiped, or is an older copy, may be being put back: that is a movement too."""
        self._turn = 2
        if head < self.cursor:
            self.cursor = head
            self._still.reset()

    def looked_for_others(self, shown: bool, now: float) -> Transition:
        """Rule 5: where the registry shows nobody else, there is nobody to wait for."""
        self._turn, self._due = 0, now + (POLL_SECONDS if shown else TAKEOVER_TIMEOUT_SECONDS)
        return None if shown else BeginEpoch("no other listener is there")

    def redis_failed(self) -> None:
        """Redis did not answer: no bound runs."""
        self._still.interrupted()
        self._whole.interrupted()

    def scanned(self, entries: list[StreamEntry], now: float) -> Transition:
        """Takes in what the stream holds after the cursor."""
        for entry in entries:
            self.cursor = entry.id
            by = _by(entry)
            if by and by != self._fingerprint:
                theirs, mine = by.split("/"), self._fingerprint.split("/")
                if theirs[0] == mine[0] and int(theirs[1]) < int(mine[1]):
                    if not self.heard_begin:
                        self.heard_begin = True
                        return BeginEpoch("the listener at work is on a lower timeline")
                else:
                    self.foreign = by
            if self._is_marker(entry):
                if decode(entry.text).fingerprint == self._fingerprint:
                    return MarkerFound(entry.id)
                self.foreign = True
        if len(entries) == SCAN_EVENTS:
            return None  # the head is not reached
        self._turn = 1
        if entries:
            self._moved = True
            self._still.reset()
        if self._still.answered(now):
            self._still.reset()
            return BeginEpoch("no listener has numbered anything for a while")
        if self._whole.answered(now) and self._moved and not self.foreign:
            return Realign("the stream moves, but this marker was not found in it")
        return None

    def _is_marker(self, entry: StreamEntry) -> bool:
        if self._marker.encode() not in entry.text:
            return False
        event = decode(entry.text)
        return event.channel == MUX_CHANNEL and parse(bytes(event.payload)).marker == self._marker


def _by(entry: StreamEntry) -> str:
    """Whose count an entry on our own channel is, if it says so."""
    if b'"fingerprint":"' not in entry.text:
        return ""
    try:
        return decode(entry.text).fingerprint or ""
    except ValueError:
        return ""
