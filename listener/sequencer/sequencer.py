"""The sequencer of one PostgreSQL session; the rules that are named here are those of docs/numbering.md.

It is told what happened (`on_notifications`, `on_answer`, `on_redis_failure`) and asked what to send (`to_postgres`,
`to_redis`); `listener.forwarder` does the I/O. It lives as long as its session: a new session knows no ids and starts
in the phase `Aligning` (rule 1).

Times are seconds on any monotonic clock.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from app.core.cluster import Cluster
from app.core.incident_log import Kind
from listener.sequencer.active import Active, Role
from listener.sequencer.aligning import COPIED_DATABASE, OTHER_SETTINGS, Aligning, ReceivedNotification
from listener.sequencer.control_messages import ControlChannel, ControlMessage, ReceivedControl, parse
from listener.sequencer.process_state import ProcessState
from listener.sequencer.redis_requests import Answer, Request
from listener.sequencer.transitions import LeaveServer, MarkerFound, Realign, SendBegin, Transition
from notifymux.event import MUX_CHANNEL, EventId

logger = logging.getLogger(__name__)

MAX_MISSED_MARKERS = 3  # in a moving stream, before a new epoch


class SequencerStatus(NamedTuple):
    """What the registry shows of a sequencer; the defaults are for a process without a PostgreSQL session."""

    role: str = "unconnected"
    position: str = ""
    buffered: int = 0
    buffered_bytes: int = 0
    passive: str = ""  # why it appends nothing although it could


class Sequencer:
    """Assigns ids to the notifications of one session and has them appended to the stream.

    Args:
        session_id: unlike any other session's.
        process: this listener's.
        cluster: the session's PostgreSQL; None if it is not known.
    """

    def __init__(self, session_id: str, process: ProcessState, cluster: Cluster | None) -> None:
        self._process, self._control = process, ControlChannel(session_id, process)
        self._cluster = cluster
        self._missed_markers = 0  # since ids were last known
        self._passive_reason = ""  # why this listener appends nothing although it could (rule 6), as it was logged
        self.session_failure: str | None = None  # why the session has to be replaced
        self.phase: Aligning | Active
        self._realign()

    # PostgreSQL.

    def to_postgres(self, now: float) -> ControlMessage | None:
        """The next message to send on the session, if any."""
        return self._control.next_message(now)

    def on_query_failure(self, now: float) -> None:
        """Record that the query of the last message failed; `to_postgres` returns the message again."""
        self._control.on_query_failure(now)

    def on_notifications(self, notifications: Sequence[ReceivedNotification], now: float) -> None:
        """Process notifications in the order in which PostgreSQL delivered them."""
        self._process.stats.received += len(notifications)
        for received in notifications:
            control = parse(received.payload) if received.channel == MUX_CHANNEL else None
            if control and control.begin is not None:
                self._on_begin(control, control.begin, now)
            self.phase.on_notification(received, control, now)
            if control and self._control.is_own(control):
                self._control.on_own_message(now)
        if self._fill_level() > 1:
            self._apply(self.phase.on_overflow(now))

    def _on_begin(self, begin: ReceivedControl, epoch: int, now: float) -> None:
        """Rule 5: a listener that is active, or sent the begin itself, drops its buffer and continues in the new epoch.

        An active listener takes a begin whose sender did not know the current epoch for an ordinary event, so that the
        first of two concurrent begins wins. A listener that is not active can't tell whether the others did the same:
        it sends a new marker.
        """
        if begin.floor > epoch or not self._process.is_plausible(epoch):
            logger.error(
                "a begin of epoch %d is refused: no listener sends such a one, or the clocks of PostgreSQL and of this "
                "pod are more than a day apart",
                epoch,
            )
            return
        is_own = self._control.is_own(begin)
        takes_part = is_own or isinstance(self.phase, Active)
        known = self.phase.epoch if isinstance(self.phase, Active) else self._process.highest_epoch
        if (begin.floor if takes_part else epoch) <= known:
            return
        self._process.saw_epoch(epoch)
        if begin.fingerprint != self._process.fingerprint:
            self._stay_passive(OTHER_SETTINGS)
            self._realign()
        elif takes_part:
            logger.info("epoch %d begins after %s: %s", epoch, begin.previous, begin.why)
            if is_own:
                self._process.stats.epochs += 1
                self._process.stats.incidents.add(Kind.EPOCH, f"began epoch {epoch}: {begin.why}", now)
            self._activate(EventId(epoch, 0), Role.PRIMARY if is_own else Role.STANDBY, load=False)
        else:
            self._realign()

    @property
    def is_half_full(self) -> bool:
        """Whether more than half of the buffer is used."""
        return self._fill_level() > 1 / 2

    def _fill_level(self) -> float:
        buffered, limits = self.phase.buffered, self._process.limits
        return max(buffered.events / limits.events, buffered.bytes / limits.bytes)

    # Redis.

    def to_redis(self, now: float) -> Request | None:
        """The next request to perform, if any. `on_answer` or `on_redis_failure` must follow before anything else."""
        return self.phase.to_redis(now)

    def on_redis_failure(self) -> None:
        """Record that Redis did not answer. `to_redis` returns the same request again (rule 12)."""
        self.phase.on_redis_failure()

    def on_answer(self, request: Request, answer: Answer, now: float) -> None:
        """Process the answer to the request of `to_redis`."""
        transition = self.phase.on_answer(request, answer, now)
        if isinstance(self.phase, Aligning) and self.phase.foreign:
            self._stay_passive(self.phase.foreign)
        self._apply(transition)

    # The feed.

    @property
    def fed_epoch(self) -> Active | None:
        """The phase whose events are fed to the workers of this pod; None while ids are not known (rule 14)."""
        return self.phase if isinstance(self.phase, Active) else None

    # The transitions.

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
                    self._begin_beside(phase.position, why)
            case LeaveServer(why), _:
                self.session_failure = why
            case SendBegin(why, is_error), phase:
                logger.log(logging.ERROR if is_error else logging.INFO, "requesting a new epoch: %s", why)
                self._control.send_begin(phase.position, why)

    def _begin_beside(self, position: EventId, why: str) -> None:
        """Rule 5: a moving stream without this listener's markers. The second time, it is another database's stream."""
        logger.error("%d markers were not found although the stream moves", self._missed_markers)
        self._missed_markers = 0
        self._process.begins_beside += 1
        if self._process.begins_beside == 1:
            self._control.send_begin(position, why)
        else:
            self._stay_passive(COPIED_DATABASE)
            self._realign()

    def _activate(self, position: EventId, role: Role, *, load: bool) -> Active:
        active = Active(self._process, self._control, self._cluster, position, role, load=load)
        self.phase = active
        self._missed_markers, self._passive_reason = 0, ""
        return active

    def _realign(self) -> None:
        self.phase = Aligning(self._process, self._control, self._cluster)

    def _stay_passive(self, reason: str) -> None:
        """Rule 6: log once that another listener appends events that are not this one's."""
        if reason != self._passive_reason:
            logger.warning(
                "this listener stays passive until the other one is gone, and then begins a new epoch: %s", reason
            )
            self._passive_reason = reason

    # Its state.

    @property
    def is_verified(self) -> bool:
        """Whether the session receives its own notifications, so that LISTEN works on it."""
        return self._control.is_verified

    @property
    def awaits_own_message(self) -> bool:
        """Whether the message that was sent last has not come back."""
        return self._control.awaits_own_message

    @property
    def unconfirmed(self) -> int:
        """How many events have an id and are not known to be in the stream."""
        return len(self.phase.buffer) if isinstance(self.phase, Active) else 0

    @property
    def can_finish(self) -> bool:
        """Whether `to_redis` brings all events into the stream even if the session delivers nothing more."""
        return isinstance(self.phase, Active) and bool(self.phase.buffer) and self.phase.gap is None

    def status(self) -> SequencerStatus:
        """What the registry shows."""
        if isinstance(self.phase, Active):
            return SequencerStatus(self.phase.role.value, str(self.phase.position), *self.phase.buffered)
        return SequencerStatus("unaligned", "", *self.phase.buffered, self._passive_reason)
