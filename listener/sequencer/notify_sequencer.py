"""The sequencer of a session that LISTENs: every listener counts, and the first of equal copies is appended."""

import logging
from collections.abc import Sequence

from app.core.cluster import Cluster
from listener.sequencer.active import Active, Role
from listener.sequencer.aligning import COPIED_DATABASE, OTHER_SETTINGS, Aligning
from listener.sequencer.control_messages import ReceivedControl, parse
from listener.sequencer.process_state import ProcessState
from listener.sequencer.received import ReceivedNotification
from listener.sequencer.sequencer import Sequencer
from listener.sequencer.snapshot import Snapshot
from listener.sequencer.transitions import LeaveServer, MarkerFound, Realign, SendBegin, Transition
from listener.stats import Received
from notifymux.event import MUX_CHANNEL, EventId, payload_json

logger = logging.getLogger(__name__)

MAX_MISSED_MARKERS = 3  # in a moving stream, before a new epoch


class NotifySequencer(Sequencer):
    """Starts in the phase `Aligning` (rule 1). It never leaves anything in PostgreSQL: what is full is dropped."""

    phase: Aligning | Active
    holds_back = False
    confirmable = 0  # PostgreSQL remembers no notification

    def __init__(self, session_id: str, process: ProcessState, cluster: Cluster | None) -> None:
        super().__init__(session_id, process, cluster)
        self._missed_markers = 0  # since ids were last known

    def _search(self) -> Aligning:
        return Aligning(self._process, self._control, self._cluster)

    def on_received(self, received: Sequence[Received], at: float, now: float) -> None:
        """Process notifications in the order in which PostgreSQL delivered them."""
        self._process.stats.received += len(received)
        for each in received:
            notification = ReceivedNotification(each.channel, payload_json(each.payload), at)
            control = parse(notification.payload) if each.channel == MUX_CHANNEL else None
            if control and control.begin is not None:
                self._on_begin(control, control.begin, now)
            self.phase.on_notification(notification, control, now)
            if control and self._control.is_own(control):
                self._control.on_own_message(now)
        if self._fill_level() > 1:
            self._apply(self.phase.on_overflow(now))

    def on_snapshot(self, _snapshot: Snapshot, _now: float) -> None:
        """Refuse it: what notifies is visible.

        Raises:
            TypeError: always. This sequencer asks for no snapshot.
        """
        raise TypeError("no snapshot was asked for")

    def _on_begin(self, begin: ReceivedControl, epoch: int, now: float) -> None:
        """Rule 5: a listener that is active, or sent the begin itself, drops its buffer and continues in the new epoch.

        An active listener takes a begin whose sender did not know the current epoch for an ordinary event, so that the
        first of two concurrent begins wins. A listener that is not active can't tell whether the others did the same:
        it sends a new marker.
        """
        if not self._accepts(begin, epoch):
            return
        takes_part = self._control.is_own(begin) or isinstance(self.phase, Active)
        known = self.phase.epoch if isinstance(self.phase, Active) else self._process.highest_epoch
        if (begin.floor if takes_part else epoch) <= known:
            return
        self._process.saw_epoch(epoch)
        if begin.fingerprint != self._process.fingerprint:
            self._stay_passive(OTHER_SETTINGS)
            self._realign()
        elif takes_part:
            self._begin(begin, epoch, Role.PRIMARY if self._control.is_own(begin) else Role.STANDBY, now)
        else:
            self._realign()

    def _apply(self, transition: Transition) -> None:
        match transition, self.phase:
            case MarkerFound(marker_id), Aligning(pending=pending):
                # Rule 4: the marker's id determines the ids of all notifications after it.
                self._process.begins_beside = 0
                active = self._activate(marker_id, Role.STANDBY, load=True)
                for received, control, since in pending:
                    active.on_notification(received, control, since)
                logger.info("aligned at %s", active.position)
            case Realign(why), phase:
                logger.warning("looking for this listener's place in the stream again: %s", why)
                self._missed_markers += isinstance(phase, Aligning)
                if self._missed_markers < MAX_MISSED_MARKERS:
                    self._realign()
                else:
                    self._begin_beside(why)
            case LeaveServer(why), _:
                self.session_failure = why
            case SendBegin() as begin, _:
                self._send_begin(begin)

    def _begin_beside(self, why: str) -> None:
        """Rule 5: a moving stream without this listener's markers. The second time, it is another database's stream."""
        logger.error("%d markers were not found although the stream moves", self._missed_markers)
        self._missed_markers = 0
        self._process.begins_beside += 1
        if self._process.begins_beside == 1:
            self._control.send_begin(self.phase.position, why)
        else:
            self._stay_passive(COPIED_DATABASE)
            self._realign()

    def _activate(self, position: EventId, role: Role, *, load: bool, after: str = "") -> Active:
        self._missed_markers = 0
        return super()._activate(position, role, load=load, after=after)

    def _realign(self) -> None:
        self.phase = self._search()

    @property
    def can_finish(self) -> bool:
        """Whether all events come into the stream even if the session delivers nothing more (rule 1)."""
        return isinstance(self.phase, Active) and bool(self.phase.buffer) and self.phase.gap is None
