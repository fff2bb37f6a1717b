"""The phase of a slot's reader in which ids are not known: it looks for the stream's last event in what the slot sends.

The slot sends again what is not confirmed, and the reader confirms only what has been in the stream for a while. So
the slot sends the stream's last event again, and from there on the count goes on (rule W2 of docs/wal.md).
"""

from app.core.cluster import Cluster
from listener.sequencer.control_messages import ControlChannel
from listener.sequencer.process_state import BufferSize, ProcessState
from listener.sequencer.received import ReceivedNotification
from listener.sequencer.redis_requests import Answer, ReadRecent, Request, StreamEntry
from listener.sequencer.transitions import Anchored, LeaveServer, SendBegin, Transition
from listener.sequencer.wal_place import WalPlace
from notifymux.event import EventId, decode
from notifymux.progress_timeout import POLL_SECONDS

FOREIGN_STREAM = (
    "the stream's last event is not from this slot: another listener is at work with SOURCE=notify, other "
    "NOTIFY_CHANNELS, another database or another cluster"
)


class Anchoring:
    """Reads the stream's last entry, and compares the slot's messages with it.

    Args:
        process: this listener's.
        control: sends the canary that shows where the slot is, and the begin.
        origin: of this reader's places.
        cluster: its server.
    """

    def __init__(self, process: ProcessState, control: ControlChannel, origin: str, cluster: Cluster) -> None:
        self.position = EventId(0, 0)
        self.foreign = ""  # why the stream's last entry is not this reader's; empty if it may be
        self._process, self._control = process, control
        self._origin, self._cluster = origin, cluster
        self._entry: StreamEntry | None = None
        self._is_read = self._begun = False
        self._standing_still = process.takeover_timeout()
        self._next_poll = 0.0

    @property
    def buffered(self) -> BufferSize:
        """How much waits for ids: nothing, the sequencer keeps what it has not shown."""
        return BufferSize(0, 0)

    @property
    def is_looking(self) -> bool:
        """Whether it takes messages: it knows the stream's last entry."""
        return self._is_read

    def to_redis(self, now: float) -> Request | None:
        """The next request, if any."""
        if not self._is_read or (self.foreign and not self._begun and now >= self._next_poll):
            return ReadRecent(1)
        return None

    def on_redis_failure(self) -> None:
        """Pause the timeout: Redis did not answer."""
        self._standing_still.pause()

    def on_answer(self, request: Request, answer: Answer, now: float) -> Transition:
        """Process the answer to the last request."""
        if not isinstance(request, ReadRecent) or not isinstance(answer, list):
            raise TypeError(f"{type(answer).__name__} does not answer {type(request).__name__}")
        entry = answer[0] if answer else None
        has_moved = self._is_read and entry != self._entry
        self._entry, self._is_read = entry, True
        self._next_poll = now + POLL_SECONDS
        if entry is None:
            self.foreign = ""
            return self._begin("the stream is empty")
        self._process.saw_epoch(entry.id.epoch)
        self.position = entry.id
        place = WalPlace.of_text(entry.text)
        if place and place.origin == self._origin:
            self.foreign = ""
            if place.timeline != self._cluster.timeline:
                return self._on_another_timeline(place.timeline)
            self._control.send_canary()  # a slot with nothing to send shows by it where it is
            return None
        self.foreign = FOREIGN_STREAM
        if has_moved:
            self._standing_still.reset()
        return self._begin("nobody has numbered anything for a while") if self._standing_still.tick(now) else None

    def _on_another_timeline(self, timeline: int) -> Transition:
        """The stream's last event is from another timeline: the server that was promoted last is right (rule W4)."""
        self._process.saw_cluster(self._cluster._replace(timeline=timeline))
        if why := self._process.why_outdated(self._cluster):
            return LeaveServer(why)
        return self._begin("the server was promoted since the stream's last event")

    def look(self, received: ReceivedNotification, *, is_own: bool) -> Transition:
        """Compare a message with the stream's last entry: those before it are in the stream already.

        Not so this session's own (`is_own`), which it sent after it had read that entry. Where it comes before the
        entry, the server was put back: it is a copy that is older than the stream.
        """
        if self._begun or self.foreign or self._entry is None:
            return None
        at, place = WalPlace.of_text(self._entry.text), WalPlace.parse(received.place)
        if at is None or place is None:
            return None
        if place < at:
            return self._begin("the server's WAL is older than the stream's last event") if is_own else None
        event = decode(self._entry.text)
        if place == at and event.channel == received.channel and bytes(event.payload) == received.payload:
            return Anchored(self._entry.id, received.place)
        return self._begin("the slot does not send the stream's last event again")

    def _begin(self, why: str) -> Transition:
        if self._begun:
            return None
        self._begun = True
        return SendBegin(why)
