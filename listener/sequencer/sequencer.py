"""The sequencer of one PostgreSQL session; the rules that are named here are those of docs/numbering.md.

It is told what happened (`on_received`, `on_answer`, `on_redis_failure`) and asked what to send (`to_postgres`,
`to_redis`); `listener.forwarder` does the I/O. It lives as long as its session: a new session knows no ids.

There is one for each source of events: `notify_sequencer.NotifySequencer` and `wal_sequencer.WalSequencer`.

Times are seconds on any monotonic clock.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from app.core.cluster import Cluster
from app.core.incident_log import Kind
from listener.sequencer.active import Active, Role
from listener.sequencer.control_messages import ControlChannel, ControlMessage, ReceivedControl
from listener.sequencer.process_state import BufferSize, ProcessState
from listener.sequencer.redis_requests import Answer, Request
from listener.sequencer.snapshot import Snapshot
from listener.sequencer.transitions import SendBegin, Transition
from notifymux.event import EventId

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1  # how late a message to PostgreSQL may be sent that becomes due


class SequencerStatus(NamedTuple):
    """What the registry shows of a sequencer; the defaults are for a process without a PostgreSQL session."""

    role: str = "unconnected"
    position: str = ""
    buffered: int = 0
    buffered_bytes: int = 0
    passive: str = ""  # why it appends nothing although it could


class Searching(Protocol):
    """The phase in which ids are not known."""

    position: EventId
    foreign: str

    @property
    def buffered(self) -> BufferSize:
        """How much waits for ids."""

    def to_redis(self, now: float) -> Request | None:
        """The next request, if any."""

    def on_redis_failure(self) -> None:
        """Redis did not answer."""

    def on_answer(self, request: Request, answer: Answer, now: float) -> Transition:
        """Process the answer to the last request."""


class Sequencer(ABC):
    """Assigns ids to what one session delivers, and has the events appended to the stream.

    Args:
        session_id: unlike any other session's.
        process: this listener's.
        cluster: the session's PostgreSQL; None if it is not known.
    """

    def __init__(self, session_id: str, process: ProcessState, cluster: Cluster | None) -> None:
        self._process, self._control = process, ControlChannel(session_id, process)
        self._cluster = cluster
        self._passive_reason = ""  # why this listener appends nothing although it could (rule 6), as it was logged
        self.session_failure: str | None = None  # why the session has to be replaced
        self.phase: Searching | Active = self._search()

    @abstractmethod
    def _search(self) -> Searching:
        """Return a new phase in which ids are not known."""

    # PostgreSQL.

    def to_postgres(self, now: float) -> ControlMessage | None:
        """The next message to send on the session, if any."""
        return self._control.next_message(now)

    def on_query_failure(self, now: float) -> None:
        """Record that the query of the last message failed; `to_postgres` returns the message again."""
        self._control.on_query_failure(now)

    @abstractmethod
    def on_snapshot(self, snapshot: Snapshot, now: float) -> None:
        """Process the answer to `TakeSnapshot`."""

    def seconds_to_query(self, _now: float) -> float:
        """In how many seconds `to_postgres` has something to send at the latest."""
        return LOOK_SECONDS

    @abstractmethod
    def on_received(self, received: Sequence[Any], at: float, now: float) -> None:
        """Process what the session delivered, in order; `at` is the wall clock, Unix seconds."""

    def _accepts(self, begin: ReceivedControl, epoch: int) -> bool:
        """Whether a listener can have sent a begin (rule 5)."""
        if begin.floor <= epoch and self._process.is_plausible(epoch):
            return True
        logger.error(
            "a begin of epoch %d is refused: no listener sends such a one, or the clocks of PostgreSQL and of this "
            "pod are more than a day apart",
            epoch,
        )
        return False

    def _begin(self, begin: ReceivedControl, epoch: int, role: Role, now: float) -> None:
        """Continue in the epoch that a begin begins; the buffer of the last one is dropped."""
        logger.info("epoch %d begins after %s: %s", epoch, begin.previous, begin.why)
        if self._control.is_own(begin):
            self._process.stats.epochs += 1
            self._process.stats.incidents.add(Kind.EPOCH, f"began epoch {epoch}: {begin.why}", now)
        self._activate(EventId(epoch, 0), role, load=False)

    @property
    @abstractmethod
    def holds_back(self) -> bool:
        """Whether what the session has received is left there, whatever Redis does."""

    @property
    def is_half_full(self) -> bool:
        """Whether more than half of the buffer is used."""
        return self._fill_level() > 1 / 2

    def _fill_level(self) -> float:
        buffered, limits = self.phase.buffered, self._process.limits
        return max(buffered.events / limits.events, buffered.bytes / limits.bytes)

    @property
    @abstractmethod
    def confirmable(self) -> int:
        """The LSN up to which the session's slot may forget; 0 for none."""

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
        if not isinstance(self.phase, Active) and self.phase.foreign:
            self._stay_passive(self.phase.foreign)
        self._apply(transition)

    # The feed.

    @property
    def fed_epoch(self) -> Active | None:
        """The phase whose events are fed to the workers of this pod; None while ids are not known (rule 14)."""
        return self.phase if isinstance(self.phase, Active) else None

    # The transitions.

    @abstractmethod
    def _apply(self, transition: Transition) -> None:
        """Carry out what a phase decided."""

    def _send_begin(self, begin: SendBegin) -> None:
        logger.log(logging.ERROR if begin.is_error else logging.INFO, "requesting a new epoch: %s", begin.why)
        self._control.send_begin(self.phase.position, begin.why)

    def _activate(self, position: EventId, role: Role, *, load: bool, after: str = "") -> Active:
        active = Active(self._process, self._control, self._cluster, position, role, load=load, after=after)
        self.phase = active
        self._passive_reason = ""
        return active

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
        """Whether the session receives what it sends itself."""
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
    def can_leave(self) -> bool:
        """Whether the session may be ended in order: what it has received has ids, and nothing has to be put back."""
        return isinstance(self.phase, Active) and self.phase.gap is None

    @property
    @abstractmethod
    def can_finish(self) -> bool:
        """Whether `to_redis` has to bring the events into the stream after the session is lost."""

    def status(self) -> SequencerStatus:
        """What the registry shows."""
        if isinstance(self.phase, Active):
            return SequencerStatus(self.phase.role.value, str(self.phase.position), *self.phase.buffered)
        return SequencerStatus("unaligned", "", *self.phase.buffered, self._passive_reason)
