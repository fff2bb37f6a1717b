"""PostgreSQL and Redis as far as the sequencer can see them."""

import json
from collections import deque

from app.core.canary import MUX_CHANNEL, Canary
from listener.sequencer.control_messages import Begin, ControlMessage, Marker
from listener.sequencer.redis_requests import Append, AppendResult, AppendStatus, StreamEntry
from notifymux.event import EventId

NOTHING = EventId(0, 0)
CHANNEL = "match_change"
EXTRA_CHANNEL = "players_change"


class Violation(AssertionError):  # noqa: N818 - it is what the tests call it
    """A guarantee was broken."""


class Session:
    """A session that LISTENs, on the server's side."""

    def __init__(self) -> None:
        self.channels: frozenset[str] = frozenset()
        self.sent: deque[ControlMessage] = deque()  # on its way to PostgreSQL
        self.queue: deque[tuple[str, str]] = deque()  # on its way to the listener
        self.alive = True


class Postgres:
    """Commits in one order, which is the same for every session that LISTENs."""

    def __init__(self) -> None:
        self.clock_ms = 1_000_000
        self.sessions: list[Session] = []
        self.committed = 0  # events of the users

    def connect(self) -> Session:
        session = Session()
        self.sessions.append(session)
        return session

    def disconnect(self, session: Session) -> None:
        session.alive = False
        if session in self.sessions:
            self.sessions.remove(session)

    def notify(self, channel: str, payload: str) -> None:
        for session in self.sessions:
            if channel in session.channels:
                session.queue.append((channel, payload))

    def commit_event(self, channel: str) -> None:
        self.committed += 1
        self.notify(channel, str(self.committed))

    def execute(self, session: Session, message: ControlMessage, channels: frozenset[str]) -> None:
        """Execute a listener's statement."""
        match message:
            case Marker(token, fingerprint):
                session.channels = channels | {MUX_CHANNEL}
                fields: dict[str, object] = {"marker": token, "fingerprint": fingerprint}
            case Begin(token, fingerprint, floor, jitter, previous, why):
                epoch = max(self.clock_ms, floor) + jitter
                fields = {
                    "begin": epoch,
                    "floor": floor,
                    "by": token,
                    "fingerprint": fingerprint,
                    "previous": previous,
                    "why": why,
                }
            case Canary(canary=token):
                fields = {"canary": token}
        self.notify(MUX_CHANNEL, json.dumps(fields))


class Redis:
    """One master: the stream, the registry and the messages published."""

    def __init__(self) -> None:
        self.up = True
        self.entries: list[StreamEntry] = []
        self.published: list[bytes] = []
        self.registry: dict[str, float] = {}  # the last heartbeats
        self.highest = NOTHING  # ever appended

    def copy(self, entries: int) -> "Redis":
        """Another master that has only the first `entries` entries (a replica that lagged)."""
        other = Redis()
        other.entries = self.entries[:entries]
        other.registry = dict(self.registry)
        return other

    def wipe(self) -> None:
        self.entries, self.registry = [], {}

    @property
    def head(self) -> EventId | None:
        return self.entries[-1].id if self.entries else None

    def append(self, request: Append) -> AppendResult:
        """As `append.lua` does; tests/integration/test_append.py compares the two."""
        head = self.head or NOTHING
        epoch, first = request.first
        if head.epoch > epoch:
            return AppendResult(AppendStatus.SUPERSEDED, head, 0)
        skip = 0
        if head.epoch == epoch:
            if first > head.sequence + 1:
                return AppendResult(AppendStatus.GAP, head, 0)
            skip = min(head.sequence - first + 1, len(request.texts))
        elif first != 1 and not request.restore:
            return AppendResult(AppendStatus.BEHIND, head, 0)
        for offset in range(skip, len(request.texts)):
            self.add(StreamEntry(EventId(epoch, first + offset), request.texts[offset]), publish=not request.restore)
        return AppendResult(AppendStatus.OK, self.head or NOTHING, len(request.texts) - skip)

    def add(self, entry: StreamEntry, *, publish: bool) -> None:
        """XADD, which refuses an id that is not above the last one, and PUBLISH."""
        if self.head and entry.id <= self.head:
            raise Violation(f"Redis refuses {entry.id} after {self.head}")
        self.entries.append(entry)
        self.highest = max(self.highest, entry.id)
        if publish:
            self.published.append(entry.text)

    def after(self, position: EventId, limit: int) -> list[StreamEntry]:
        low, high = 0, len(self.entries)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.entries[middle].id <= position else (low, middle)
        return self.entries[low : low + limit]
