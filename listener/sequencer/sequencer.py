"""The numbering: listeners count notifications in commit order, and the count is the identity of an event.

A state machine without sockets and without a clock. It is told what happened (`hear`, `answered`, `redis_failed`) and
asked what to do next (`to_postgres`, `to_redis`); the I/O around it is in `listener.forwarder`. The rules are numbered
as in docs/numbering.md. One object lives as long as one PostgreSQL session (rule 1: a new session is a newcomer, with
no count, no buffer and no memory). It has three phases: wanting to know the head (`None`), looking for its marker
(`Aligning`), and counting (`Active`).

Times are seconds on any monotonic clock.
"""

import logging
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from app.core.canary import CANARY_TIMEOUT_SECONDS
from app.core.config import MUX_CHANNEL
from app.core.incident_log import Kind
from app.core.progress_timeout import TAKEOVER_TIMEOUT_SECONDS
from listener.sequencer.active import Active, Role
from listener.sequencer.aligning import Aligning, ReceivedNotification
from listener.sequencer.control_messages import Begin, Canary, ControlMessage, Marker, ReceivedControl, parse
from listener.sequencer.redis_requests import (
    Answer,
    Append,
    AppendResult,
    CheckOtherListeners,
    ReadAfter,
    ReadEntry,
    ReadHead,
    ReadRecent,
    Request,
)
from listener.sequencer.transitions import BeginEpoch, MarkerFound, Realign, Transition
from listener.stats import ListenerStats
from notifymux.event import EventId

logger = logging.getLogger(__name__)

FRESH_MARKERS = 3  # markers tried while the stream moves without them
JITTER_MS = 1000  # of an epoch: less than the bound, so that of two begins a bound apart the later is the higher


class BufferLimits(NamedTuple):
    """What may be held: events and bytes in the buffer; the memory has the bytes once more."""

    events: int
    bytes: int


class Sequencer:
    """One listener's part in the numbering, over one PostgreSQL session.

    Args:
        uid: this session's id, unlike any other's.
        fingerprint: of the database and the channels it LISTENs on.
        bounds: of buffer and memory.
        canary_interval: seconds between canaries.
        rng: jitters the bounds, so that two newcomers don't begin at once.
        tally: counts, over all sessions of this process.
        highest: the highest epoch this process has ever seen.
    """

    def __init__(
        self,
        uid: str,
        fingerprint: str,
        bounds: BufferLimits,
        *,
        canary_interval: float,
        rng: Random,
        tally: ListenerStats,
        highest: int = 0,
    ) -> None:
        self.highest = highest
        self.phase: Aligning | Active | None = None
        self._uid, self._fingerprint, self._bounds = uid, fingerprint, bounds
        self._canary_interval = canary_interval
        self._rng, self._tally = rng, tally
        self._bound = TAKEOVER_TIMEOUT_SECONDS * rng.uniform(1.0, 1.3)
        self._tokens = 0
        self._outbox: deque[ControlMessage] = deque()
        self._unheard_since: float | None = None
        self._next_canary: float | None = None
        self._marker = ""
        self._markers = 0  # tried since the last alignment
        self._said_passive = False
        self._leaving = False

    # What goes to PostgreSQL.

    def to_postgres(self, now: float) -> ControlMessage | None:
        """The next message to send on this session, if any."""
        if self._next_canary is not None and now >= self._next_canary:
            self._next_canary = now + self._canary_interval
            self._outbox.append(Canary(self._token()))
        if not self._outbox:
            return None
        if self._unheard_since is None:
            self._unheard_since = now
        return self._outbox.popleft()

    def lost(self, now: float) -> str | None:
        """Why this session must be given up: what it sent itself did not come back."""
        if self._unheard_since is None or now - self._unheard_since < CANARY_TIMEOUT_SECONDS:
            return None
        if self._next_canary is None:
            return (
                "the session's own notification was not delivered to it: DB_HOST must lead to a primary PostgreSQL, "
                "not to a transaction pooler or a standby"
            )
        return f"its canary did not come back within {CANARY_TIMEOUT_SECONDS:.0f} s"

    def _token(self) -> str:
        self._tokens += 1
        return f"{self._uid}.{self._tokens}"

    # What PostgreSQL delivered.

    def hear(self, notifications: Sequence[ReceivedNotification], now: float) -> None:
        """Takes in notifications, in the order in which they were delivered."""
        self._tally.received += len(notifications)
        if notifications and self._unheard_since is not None:
            self._unheard_since = now  # what comes before it is no sign that it doesn't
        for heard in notifications:
            said = parse(heard.payload) if heard.channel == MUX_CHANNEL else None
            if said and said.begin:
                self._heard_begin(said, said.begin, now)
            if isinstance(self.phase, Active):
                self.phase.number(heard, now)
            elif self.phase and self.phase.heard_marker:
                self.phase.hear(heard, now)
            if said and self._is_own(said):
                self._heard_own(said, now)
        self._check_bounds(now)

    def _heard_begin(self, said: ReceivedControl, epoch: int, now: float) -> None:
        """Rule 5: who counts, or asked for it itself, clears what it holds and counts from there.

        One that was asked for without knowing the epoch at work is an ordinary event, so that of two at once the first
        counts. A newcomer can't tell whether others take it, and lets a marker find out.
        """
        known = self.phase.epoch if isinstance(self.phase, Active) else self.highest
        takes_part = isinstance(self.phase, Active) or self._is_own(said)
        if (said.floor if takes_part else epoch) <= known:
            return
        self.highest = max(self.highest, epoch)
        if said.fingerprint != self._fingerprint:
            self._stay_passive()
            self._realign()
        elif takes_part:
            logger.info("epoch %d begins after %s: %s", epoch, said.previous, said.why)
            if self._is_own(said):
                self._tally.epochs += 1
                self._tally.incidents.add(Kind.EPOCH, f"began epoch {epoch}: {said.why}", now)
            self._count(EventId(epoch, 0), Role.PRIMARY if self._is_own(said) else Role.STANDBY, load=False)
        else:
            self._realign()

    def _is_own(self, said: ReceivedControl) -> bool:
        return (said.marker or said.canary or said.by).startswith(self._uid)

    def _heard_own(self, said: ReceivedControl, now: float) -> None:
        self._unheard_since = None
        if self._next_canary is None:
            self._next_canary = now + self._canary_interval
        if said.marker == self._marker and isinstance(self.phase, Aligning):
            self.phase.heard_marker = True
        elif said.canary and isinstance(self.phase, Active):
            self.phase.canary_came_back(said.canary)

    def _check_bounds(self, now: float) -> None:
        """Rule 10: PostgreSQL is read on, always; what can't be held is given up, and announced by who comes next."""
        match self.phase:
            case Active() as count if self._exceeded(len(count.buffer), count.buffer.bytes):
                logger.error(
                    "the buffer is full with %d events of %d bytes (BUFFER_EVENTS, BUFFER_BYTES): they are given up, "
                    "and unless another listener has them, clients will be told of a gap",
                    len(count.buffer),
                    count.buffer.bytes,
                )
                self._tally.given_up += len(count.buffer)
                text = f"gave up {len(count.buffer)} events: the buffer was full"
                self._tally.incidents.add(Kind.OVERFLOW, text, now)
                self._realign()
            case Aligning() as search if self._exceeded(len(search.early), search.early_bytes):
                search.mark_anew(self._mark())

    @property
    def is_half_full(self) -> bool:
        """Whether half of what may be held is held."""
        match self.phase:
            case Active(buffer=buffer):
                return self._exceeded(2 * len(buffer), 2 * buffer.bytes)
            case Aligning(early=early, early_bytes=size):
                return self._exceeded(2 * len(early), 2 * size)
        return False

    def _exceeded(self, events: int, size: int) -> bool:
        return events > self._bounds.events or size > self._bounds.bytes

    # What Redis is asked, and answers.

    def to_redis(self, now: float) -> Request | None:
        """The next request to carry out, if any. Then `answered` or `redis_failed` is called."""
        if self.phase is None:
            return None if self._outbox else ReadHead()
        return self.phase.to_redis(now)

    def redis_failed(self) -> None:
        """Redis did not answer: the same request comes again, with the same ids (rule 12)."""
        if self.phase:
            self.phase.redis_failed()

    def answered(self, request: Request, answer: Answer, now: float) -> None:
        """Takes in the answer to what `to_redis` asked, before anything else happens."""
        self._judge(self._verdict(request, answer, now))

    def _verdict(self, request: Request, answer: Answer, now: float) -> Transition:
        verdict: Transition = None
        match request, answer, self.phase:
            case ReadHead(), None | EventId(), None:
                self._send_marker(answer or EventId(0, 0))
            case ReadAfter(), list(), Aligning() as search:
                verdict = search.scanned(answer, now)
                self._note_search(search)
            case ReadHead(), None | EventId(), Aligning() as search:
                search.head_read(answer or EventId(0, 0))
            case CheckOtherListeners(), bool(), Aligning() as search:
                verdict = search.looked_for_others(answer, now)
            case ReadRecent(), list(), Active() as count:
                verdict = count.loaded(answer)
            case ReadHead(), None | EventId(), Active() as count:
                verdict = count.head_read(answer or EventId(0, 0), now)
            case ReadEntry(), None | bytes(), Active() as count:
                verdict = count.entry_read(request, answer)
            case Append(), AppendResult(), Active() as count:
                verdict = self._appended(count, request, answer, now)
            case _:
                raise TypeError(f"{type(answer).__name__} does not answer {type(request).__name__}")
        return verdict

    def _note_search(self, search: Aligning) -> None:
        self.highest = max(self.highest, search.cursor.epoch)
        if search.foreign:
            self._stay_passive()

    def _send_marker(self, head: EventId) -> None:
        self.highest = max(self.highest, head.epoch)
        self.phase = Aligning(self._mark(), self._fingerprint, head, self._bound)

    def _mark(self) -> str:
        self._marker = self._token()
        self._outbox.append(Marker(self._marker, self._fingerprint))
        return self._marker

    def _appended(self, count: Active, request: Append, answer: AppendResult, now: float) -> Transition:
        self.highest = max(self.highest, answer.head.epoch)
        probed = count.probe
        verdict = count.appended(request, answer, self._token(), now)
        if count.probe and count.probe != probed:
            self._outbox.append(Canary(count.probe))
        return verdict

    def _judge(self, verdict: Transition) -> None:
        match verdict, self.phase:
            case MarkerFound(at), Aligning() as search:
                self._align(search, at)
            case Realign(why), _:
                logger.warning("looking for this listener's place anew: %s", why)
                self._realign_or_begin(why)
            case BeginEpoch(why, loudly), _:
                logger.log(logging.ERROR if loudly else logging.INFO, "asking for a new epoch: %s", why)
                self._begin(why)

    # The transitions.

    def _align(self, search: Aligning, at: EventId) -> None:
        """Rule 4: the marker's id gives every later notification its own."""
        count = self._count(at, Role.STANDBY, load=True)
        for heard, since in search.early:
            count.number(heard, since)
        logger.info("aligned at %d-%d", count.epoch, count.sequence)

    def _count(self, at: EventId, role: Role, *, load: bool) -> Active:
        count = Active(
            at,
            self._fingerprint,
            role,
            load=load,
            memory_bytes=self._bounds.bytes,
            bound=self._bound,
            tally=self._tally,
        )
        count.leaving = self._leaving
        self.phase = count
        self._markers, self._said_passive = 0, False
        return count

    def _realign_or_begin(self, why: str) -> None:
        self._markers += isinstance(self.phase, Aligning)
        if self._markers < FRESH_MARKERS:
            self._realign()
        else:
            logger.error("%d markers were not found although the stream moves", self._markers)
            self._markers = 0
            self._begin(why)

    def _realign(self) -> None:
        self.phase = None

    def _begin(self, why: str) -> None:
        cursor = self.phase.cursor if isinstance(self.phase, Aligning) else self._position()
        jitter = self._rng.randrange(JITTER_MS)
        self._outbox.append(Begin(self._token(), self._fingerprint, self.highest + 1, jitter, str(cursor), why))

    def _stay_passive(self) -> None:
        """Rule 6: who counts other channels, or another database, is not aligned with."""
        if not self._said_passive:
            logger.warning(
                "the listener at work has other NOTIFY_CHANNELS or another database: this one stays passive until it "
                "is gone, and then begins a new epoch"
            )
            self._said_passive = True

    def leave(self) -> None:
        """Before stopping: what is held is appended at once, whatever the role."""
        self._leaving = True
        if isinstance(self.phase, Active):
            self.phase.leaving = True

    # For who watches.

    @property
    def proven(self) -> bool:
        """Whether this session's own notification came back to it."""
        return self._next_canary is not None

    @property
    def held(self) -> int:
        """Events heard under an id and not known to be in the stream."""
        return len(self.phase.buffer) if isinstance(self.phase, Active) else 0

    def _position(self) -> EventId:
        return EventId(self.phase.epoch, self.phase.sequence) if isinstance(self.phase, Active) else EventId(0, 0)
