"""The phase in which ids are not known: from reading the stream's head to finding the marker (rules 2, 4, 5 and 6)."""

import msgspec

from app.core.cluster import Cluster
from listener.sequencer.control_messages import JITTER_MS, ControlChannel, ReceivedControl, parse
from listener.sequencer.process_state import BufferSize, ProcessState
from listener.sequencer.received import ReceivedNotification
from listener.sequencer.redis_requests import Answer, CheckOtherListeners, ReadAfter, ReadHead, Request, StreamEntry
from listener.sequencer.transitions import LeaveServer, MarkerFound, Realign, SendBegin, Transition
from notifymux.event import MUX_CHANNEL, Event, EventId, decode
from notifymux.page_size import PageSize
from notifymux.progress_timeout import POLL_SECONDS, TAKEOVER_TIMEOUT_SECONDS

_ON_OWN_CHANNEL = b'"channel":"%b"' % MUX_CHANNEL.encode()

# Why the entries of the stream are not this listener's (rule 6).
OTHER_SETTINGS = "the listener at work has other NOTIFY_CHANNELS or another database"
OTHER_CLUSTER = (
    "the listener at work is connected to another PostgreSQL cluster that has a database of the same name; each needs "
    "a REDIS_NAMESPACE of its own"
)
COPIED_DATABASE = (
    "the stream moves without what this listener's PostgreSQL sends, so the listener at work is connected to a copy of "
    "this database that was restored elsewhere, or this is the copy; each needs a REDIS_NAMESPACE of its own"
)


class Aligning:
    """Sends a marker and looks for it in the stream.

    It reads the stream's head before it sends the marker, so that the marker's id is above it (rule 2). Then it cycles
    through three requests: the entries after `position`, the head, and the registry.

    Args:
        process: this listener's.
        control: sends the marker.
        cluster: the session's PostgreSQL; None if it is not known.
    """

    def __init__(self, process: ProcessState, control: ControlChannel, cluster: Cluster | None) -> None:
        self._cluster = cluster
        self.position = EventId(0, 0)  # of the last entry read
        self.marker_received = False
        # Received after the marker, with the time of arrival. They get their ids when the marker is found.
        self.pending: list[tuple[ReceivedNotification, ReceivedControl | None, float]] = []
        self._pending_bytes = 0
        self.foreign = ""  # why the entries of the stream are not this listener's; empty if they may be
        self._is_ahead = self._begun = False  # of a listener on a lower timeline; an epoch over it
        self._marked_at = 0.0  # when the marker was received
        self._process, self._control = process, control
        self._marker = ""  # its token; empty until it is sent
        self._idle_timeout, self._total_timeout = process.takeover_timeout(), process.takeover_timeout()
        self._stream_moved = False
        self._page = PageSize()
        self._next_step: Request = ReadHead()
        self._next_poll = 0.0

    @property
    def buffered(self) -> BufferSize:
        """How much waits for ids."""
        return BufferSize(len(self.pending), self._pending_bytes)

    def on_notification(self, received: ReceivedNotification, control: ReceivedControl | None, now: float) -> None:
        """Keep a notification that follows the marker; those before it have no use."""
        if self.marker_received:
            self.pending.append((received, control, now))
            self._pending_bytes += len(received.payload)
        elif control and control.marker and control.marker == self._marker:
            self.marker_received, self._marked_at = True, now

    def on_overflow(self, _now: float) -> Transition:
        """Drop the pending notifications and continue with a new marker (rule 10).

        The timeouts run on; otherwise a new listener on a busy database could never begin an epoch.
        """
        self._marker, self.marker_received = self._control.send_marker(), False
        self.pending, self._pending_bytes, self.foreign = [], 0, ""
        return None

    def to_redis(self, now: float) -> Request | None:
        """The next request, if any."""
        if self._marker and (not self.marker_received or now < self._next_poll):
            return None
        return self._next_step

    def on_redis_failure(self) -> None:
        """Pause the timeouts: Redis did not answer."""
        self._idle_timeout.pause()
        self._total_timeout.pause()

    def on_answer(self, request: Request, answer: Answer, now: float) -> Transition:
        """Process the answer to the last request."""
        match request, answer:
            case ReadHead(), None | EventId():
                return self._head_read(answer or EventId(0, 0))
            case ReadAfter(), list():
                return self._entries_read(request.limit, answer, now)
            case CheckOtherListeners(), bool():
                return self._others_checked(answer, now)
        raise TypeError(f"{type(answer).__name__} does not answer {type(request).__name__}")

    def _head_read(self, head: EventId) -> Transition:
        self._process.saw_epoch(head.epoch)
        if not self._marker:
            self.position, self._marker = head, self._control.send_marker()
            self._next_step = self._next_page()
            return None
        self._next_step = CheckOtherListeners()
        if head < self.position:
            # Redis was wiped, or replaced by an older copy. Another listener may be restoring the stream.
            self.position = head
            self._idle_timeout.reset()
        return None

    def _next_page(self) -> ReadAfter:
        return ReadAfter(self.position, self._page.entries)

    def _entries_read(self, limit: int, entries: list[StreamEntry], now: float) -> Transition:
        if entries:
            self._process.saw_epoch(entries[-1].id.epoch)
        for entry in entries:
            self.position = entry.id
            if (event := _on_own_channel(entry)) and (transition := self._control_read(event, entry.id)):
                return transition
        self._page.learn([len(entry.text) for entry in entries])
        if len(entries) == limit:
            self._next_step = self._next_page()
            return None
        self._next_step = ReadHead()
        # A begin that this session did not receive came before the marker. A later one has to be the higher one.
        if self._is_ahead and not self._begun and now - self._marked_at >= JITTER_MS / 1000:
            self._begun = True
            return SendBegin("the listener at work is connected to a server on a lower timeline")
        if entries:
            self._stream_moved = True
            self._idle_timeout.reset()
        if self._idle_timeout.tick(now):
            self._idle_timeout.reset()
            return SendBegin("no listener has numbered anything for a while")
        if self._total_timeout.tick(now) and self._stream_moved and not self.foreign:
            return Realign("the stream moves, but this marker was not found in it")
        return None

    def _others_checked(self, found: bool, now: float) -> Transition:
        """Rule 5: if the registry shows no other listener, there is none to wait for."""
        self._next_step = self._next_page()
        self._next_poll = now + (POLL_SECONDS if found else TAKEOVER_TIMEOUT_SECONDS)
        return None if found else SendBegin("no other listener is there")

    def _control_read(self, event: Event, entry: EventId) -> Transition:
        """Look for the marker, and compare this listener's origin with that of the listener at work (rule 6)."""
        if transition := self._compare_cluster(Cluster.parse(event.cluster)):
            return transition
        if parse(bytes(event.payload)).marker != self._marker:
            return None
        if event.fingerprint == self._process.fingerprint:
            return MarkerFound(entry)
        self.foreign = OTHER_SETTINGS
        return None

    def _compare_cluster(self, theirs: Cluster | None) -> Transition:
        mine = self._cluster
        if theirs is None or mine is None or theirs == mine:
            return None
        if theirs.system_identifier != mine.system_identifier:
            self.foreign = OTHER_CLUSTER
            return None
        # Two primaries of one cluster: the one that was promoted last is right.
        self._process.saw_cluster(theirs)
        if why := self._process.why_outdated(mine):
            return LeaveServer(why)
        self._is_ahead = True
        return None


def _on_own_channel(entry: StreamEntry) -> Event | None:
    """An entry's event if it is on our own channel; None for any other, and for one that a stranger wrote."""
    if _ON_OWN_CHANNEL not in entry.text:
        return None
    try:
        event = decode(entry.text)
    except msgspec.DecodeError:
        return None
    return event if event.channel == MUX_CHANNEL else None
