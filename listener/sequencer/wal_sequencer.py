"""The sequencer of a session that reads a replication slot; docs/wal.md has its rules.

One session at a time reads the slot, which sends again what was not confirmed. An epoch begins with a message in the
WAL, like any other, and every reader that passes it takes it. So an id is a function of the place in the WAL, and any
reader goes on with the same ids.
"""

import logging
from collections import deque
from collections.abc import Sequence
from hashlib import sha256

from app.core.cluster import Cluster
from listener.sequencer.active import Active, Role
from listener.sequencer.anchoring import Anchoring
from listener.sequencer.confirmation_trail import ConfirmationTrail
from listener.sequencer.control_messages import ControlMessage, InspectSlot, ReceivedControl, TakeSnapshot, parse
from listener.sequencer.process_state import ProcessState
from listener.sequencer.received import ReceivedNotification
from listener.sequencer.sequencer import Sequencer
from listener.sequencer.snapshot import Snapshot
from listener.sequencer.transitions import Anchored, Realign, SendBegin, Transition
from listener.sequencer.wal_message import WalMessage
from listener.sequencer.wal_place import WalPlace
from notifymux.event import MUX_CHANNEL, payload_json

logger = logging.getLogger(__name__)

_INSPECTION_SECONDS = 1.0
_NUMBERED_AT_ONCE = 100  # before another look at how full the buffer is
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.001, 0.1  # until others can see a transaction


class WalSequencer(Sequencer):
    """Starts in the phase `Anchoring`.

    Args:
        session_id: unlike any other session's.
        process: this listener's.
        cluster: the session's PostgreSQL.
        trail_seconds: for how long events are in Redis until the slot may forget them.
    """

    phase: Anchoring | Active

    def __init__(self, session_id: str, process: ProcessState, cluster: Cluster, trail_seconds: float) -> None:
        self._timeline = cluster.timeline
        identity = f"wal\0{cluster.system_identifier}\0{process.fingerprint}"
        self._origin = sha256(identity.encode()).hexdigest()[:16]
        super().__init__(session_id, process, cluster)
        self._trail = ConfirmationTrail(trail_seconds)
        self._held: deque[tuple[WalMessage, float]] = deque()  # with the time of arrival; not numbered yet
        self._held_bytes = 0
        self._snapshot: Snapshot | None = None
        self._finished_xid = 0  # of the last message that was numbered
        self._place = f"{self._origin}:{self._timeline}:"
        self._inspection_due = self._retry_due = 0.0
        self._retry_seconds = _FIRST_RETRY_SECONDS

    def _search(self) -> Anchoring:
        return Anchoring(self._process, self._control, self._origin, self._timeline)

    # PostgreSQL.

    def to_postgres(self, now: float) -> ControlMessage | None:
        """The next query to send, if any."""
        if message := super().to_postgres(now):
            return message
        if now >= self._inspection_due:
            self._inspection_due = now + _INSPECTION_SECONDS
            return InspectSlot()
        return TakeSnapshot() if self._held and self._is_numbering and now >= self._retry_due else None

    @property
    def _is_numbering(self) -> bool:
        """Whether what is held is needed now."""
        return self.phase.is_looking if isinstance(self.phase, Anchoring) else not self.is_half_full

    def seconds_to_query(self, now: float) -> float:
        """In how many seconds a query for what is held is due."""
        return max(0.0, self._retry_due - now) if self._held and self._is_numbering else super().seconds_to_query(now)

    def on_received(self, received: Sequence[WalMessage], at: float, now: float) -> None:
        """Keep messages until others can see their transactions."""
        self._process.stats.received += len(received)
        for message in received:
            self._held.append((message, at))
            self._held_bytes += len(message.payload)
        if received:
            self._retry_due, self._retry_seconds = now, _FIRST_RETRY_SECONDS
        self._number(now)

    def on_snapshot(self, snapshot: Snapshot, now: float) -> None:
        """Number what others can see now (rule W1). Later commits wait behind one that they can't."""
        self._snapshot = snapshot
        if self._held and not snapshot.is_finished(self._held[0][0].xid):
            self._retry_due = now + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, _MAX_RETRY_SECONDS)
        self._number(now)

    def _number(self, now: float) -> None:
        while self._held and self._is_numbering and self._snapshot:
            for _ in range(min(len(self._held), _NUMBERED_AT_ONCE)):
                message, at = self._held[0]
                if message.xid != self._finished_xid and not self._snapshot.is_finished(message.xid):
                    return
                self._finished_xid = message.xid
                self._held.popleft()
                self._held_bytes -= len(message.payload)
                self._on_message(message, at, now)

    def _on_message(self, message: WalMessage, at: float, now: float) -> None:
        place = f"{self._place}{message.commit:X}-{message.lsn:X}"  # as WalPlace prints it, four times as fast
        received = ReceivedNotification(message.channel, payload_json(message.payload), at, place)
        control = None
        if received.channel == MUX_CHANNEL:
            control = parse(received.payload)
            if control.begin is not None:
                self._on_begin(control, control.begin, now)
            if self._control.is_own(control):
                self._control.on_own_message(now)
        if isinstance(self.phase, Active):
            self.phase.on_notification(received, control, now)
        else:
            self._apply(self.phase.look(received))

    def _on_begin(self, begin: ReceivedControl, epoch: int, now: float) -> None:
        """Take the begin of a higher epoch, whoever sent it; a reader that has no ids, only its own.

        Its own is above every epoch that it has passed: so ids stay a function of the place.
        """
        if not self._accepts(begin, epoch):
            return
        known = self.phase.epoch if isinstance(self.phase, Active) else self._process.highest_epoch
        self._process.saw_epoch(epoch)
        if epoch > known and (isinstance(self.phase, Active) or self._control.is_own(begin)):
            self._begin(begin, epoch, Role.PRIMARY, now)

    @property
    def holds_back(self) -> bool:
        """Whether the slot's messages are left in PostgreSQL: the buffer is half full, with what has no id yet."""
        limits = self._process.limits
        held = max(len(self._held) / limits.events, self._held_bytes / limits.bytes)
        return held + self._fill_level() > 1 / 2

    def confirmable(self, now: float) -> int:
        """The LSN up to which the slot may forget: of a commit whose events have been in Redis for the trail."""
        if not isinstance(self.phase, Active):
            return self._trail.confirmable
        if self.phase.gap:
            self._trail.lost()
        elif place := WalPlace.parse(self.phase.confirmed_place):
            self._trail.appended(place.commit, now)
        return self._trail.confirmable

    # The transitions.

    def _apply(self, transition: Transition) -> None:
        match transition:
            case Anchored(event_id, place):
                active = self._activate(event_id, Role.PRIMARY, load=True, after=place)
                logger.info("aligned at %s", active.position)
            case SendBegin() as begin:
                self._send_begin(begin)
            case Realign(why):
                # The slot sends again what is not confirmed, to a new session.
                self.session_failure = why

    @property
    def can_finish(self) -> bool:
        """Never: the slot sends the events again, and they get the same ids."""
        return False
