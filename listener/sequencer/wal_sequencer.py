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
from listener.sequencer.active import Active, Role, StreamGap
from listener.sequencer.anchoring import Anchoring
from listener.sequencer.confirmation_trail import ConfirmationTrail
from listener.sequencer.control_messages import ControlMessage, InspectSlot, ReceivedControl, TakeSnapshot, parse
from listener.sequencer.process_state import ProcessState
from listener.sequencer.received import ReceivedNotification
from listener.sequencer.redis_requests import Answer, AppendResult, Request
from listener.sequencer.sequencer import Sequencer
from listener.sequencer.snapshot import Snapshot
from listener.sequencer.transitions import Anchored, LeaveServer, Realign, SendBegin, Transition
from listener.sequencer.wal_message import WalMessage
from listener.sequencer.wal_place import WalPlace
from notifymux.event import MUX_CHANNEL, payload_json

logger = logging.getLogger(__name__)

_INSPECTION_SECONDS = 1.0
_NUMBERED_AT_ONCE = 100  # before another look at how full the buffer is
# Until others can see a transaction. The first time at once: its backend is about to show it, unless it waits for a
# standby, and a query takes longer than that.
_FIRST_RETRY_SECONDS, _NEXT_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.0, 0.001, 0.1


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
        self._server = cluster
        identity = f"wal\0{cluster.system_identifier}\0{process.fingerprint}"
        self._origin = sha256(identity.encode()).hexdigest()[:16]
        super().__init__(session_id, process, cluster)
        self._trail = ConfirmationTrail(trail_seconds)
        self._held: deque[tuple[WalMessage, float]] = deque()  # with the time of arrival; not numbered yet
        self._held_bytes = 0
        self._snapshot: Snapshot | None = None
        self._finished_xid = 0  # of the last message that was numbered
        self._place = f"{self._origin}:{cluster.timeline}:"
        self._inspection_due = self._retry_due = self._asked_at = 0.0
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._asked: ControlMessage | None = None  # by the last query
        self._asked_in_gap: StreamGap | None = None  # the gap in which a snapshot was asked for

    def _search(self) -> Anchoring:
        return Anchoring(self._process, self._control, self._origin, self._server)

    # PostgreSQL.

    def to_postgres(self, now: float) -> ControlMessage | None:
        """The next query to send, if any."""
        self._asked = super().to_postgres(now) or self._next_question(now)
        return self._asked

    def _next_question(self, now: float) -> ControlMessage | None:
        if now >= self._inspection_due:
            self._inspection_due = now + _INSPECTION_SECONDS
            return InspectSlot()
        is_probing = self._gap is not None and not self._gap.is_probed
        if now < self._retry_due or not (is_probing or (self._held and self._is_numbering)):
            return None
        self._asked_in_gap = self._gap
        return TakeSnapshot()

    def on_query_failure(self, now: float) -> None:
        """Record that the last query failed. A control message is sent again; the WAL has those before a question."""
        if isinstance(self._asked, (TakeSnapshot, InspectSlot)):
            self._retry_due = now + _MAX_RETRY_SECONDS
        else:
            super().on_query_failure(now)

    @property
    def _gap(self) -> StreamGap | None:
        return self.phase.gap if isinstance(self.phase, Active) else None

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
        """Number what others can see now (rule W1). Later commits wait behind one that they can't.

        Whoever takes the slot from a reader that is frozen ends this session first. So the answer to a query that was
        sent after a gap was found shows that there is no begin that this reader has to receive before it restores
        (rule 9 of docs/numbering.md). Its canary would not come where the buffer is half full.
        """
        self._snapshot = snapshot
        if self._gap and self._gap is self._asked_in_gap:
            self._gap.is_probed = True
        if self._held and not snapshot.is_finished(self._held[0][0].xid):
            self._retry_due = now + self._retry_seconds
            self._retry_seconds = min(max(_NEXT_RETRY_SECONDS, 2 * self._retry_seconds), _MAX_RETRY_SECONDS)
        self._number(now)

    def _number(self, now: float) -> None:
        while self._held and self._is_numbering and self._snapshot:
            for _ in range(min(len(self._held), _NUMBERED_AT_ONCE)):
                message, at = self._held[0]
                if message.xid != self._finished_xid:
                    if not self._snapshot.is_finished(message.xid):
                        return
                    self._finished_xid = message.xid
                self._held.popleft()
                self._held_bytes -= len(message.payload)
                self._on_message(message, at, now)

    def _on_message(self, message: WalMessage, at: float, now: float) -> None:
        place = f"{self._place}{message.commit:X}-{message.lsn:X}"  # as WalPlace prints it, four times as fast
        received = ReceivedNotification(message.channel, payload_json(message.payload), at, place)
        control, is_own = None, False
        if received.channel == MUX_CHANNEL:
            control = parse(received.payload)
            is_own = self._control.is_own(control)
            if control.begin is not None:
                self._on_begin(control, control.begin, now)
            if is_own:
                self._control.on_own_message(now)
        if isinstance(self.phase, Active):
            self.phase.on_notification(received, control, now)
        else:
            self._apply(self.phase.look(received, is_own=is_own))

    def _on_begin(self, begin: ReceivedControl, epoch: int, now: float) -> None:
        """Take the begin of a higher epoch, whoever sent it; a reader that has no ids, only its own.

        Its own has to be above every epoch that it has passed, so that ids stay a function of the place. If it passed
        another's begin before, of a reader that ended, it sends one that is.
        """
        if not self._accepts(begin, epoch):
            return
        is_active, is_own = isinstance(self.phase, Active), self._control.is_own(begin)
        known = self.phase.epoch if isinstance(self.phase, Active) else self._process.highest_epoch
        self._process.saw_epoch(epoch)
        if epoch > known and (is_active or is_own):
            self._begin(begin, epoch, Role.PRIMARY, now)
        elif is_own and not is_active:
            self._send_begin(SendBegin(f"the begin of epoch {epoch} came after that of {known}"))

    @property
    def holds_back(self) -> bool:
        """Whether the slot's messages are left in PostgreSQL: the buffer is half full, with what has no id yet."""
        limits = self._process.limits
        held = max(len(self._held) / limits.events, self._held_bytes / limits.bytes)
        return held + self._fill_level() > 1 / 2

    @property
    def confirmable(self) -> int:
        """The LSN up to which the slot may forget: of a commit whose events have been in Redis for the trail."""
        return self._trail.confirmable

    # Redis.

    def to_redis(self, now: float) -> Request | None:
        """The next request, if any."""
        self._asked_at = now
        return super().to_redis(now)

    def on_answer(self, request: Request, answer: Answer, now: float) -> None:
        """Process the answer, and what it shows of the events that Redis has."""
        super().on_answer(request, answer, now)
        if not isinstance(self.phase, Active) or not isinstance(answer, AppendResult):
            return
        if self._gap:
            self._trail.lost()
        elif place := WalPlace.parse(self.phase.confirmed_place):
            self._trail.appended(place.commit, self._asked_at, now)

    # The transitions.

    def _apply(self, transition: Transition) -> None:
        match transition:
            case Anchored(event_id, place):
                active = self._activate(event_id, Role.PRIMARY, load=True, after=place)
                logger.info("aligned at %s", active.position)
            case SendBegin(why) if self._gap:
                # What is missing may be in the slot still.
                self.session_failure = why
            case SendBegin() as begin:
                self._send_begin(begin)
            case Realign(why) | LeaveServer(why):
                # The slot sends again what is not confirmed, to a new session.
                self.session_failure = why

    @property
    def can_finish(self) -> bool:
        """Never: the slot sends the events again, and they get the same ids."""
        return False
