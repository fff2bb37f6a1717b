"""A small world: PostgreSQL's order, Redis' script, listeners and workers, and whatever may befall them.

The listeners run the product's `Numbering`, the workers its `Follower`; everything else is simulated, driven by one
random generator, so that a seed is a schedule and a failing one can be replayed.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from random import Random

from app.core.config import MUX_CHANNEL
from app.core.event import Event, EventId, decode
from app.follower import Entry as FollowedEntry
from app.follower import Follower, Gap
from listener.count import Count, Role
from listener.messages import Begin, Canary, Marker, Message
from listener.numbering import Bounds, Numbering
from listener.requests import (
    Answer,
    Append,
    Appended,
    Entry,
    Load,
    LookForOthers,
    ReadEntry,
    ReadHead,
    Request,
    Scan,
    Status,
)
from listener.search import Heard, Search

NOTHING = EventId(0, 0)
CHANNEL = "match_change"
EXTRA_CHANNEL = "players_change"
FAR_BEHIND = 60  # events


class Violation(AssertionError):  # noqa: N818 - it is what the tests call it
    """A promise was broken."""


class Session:
    """A LISTENing session as PostgreSQL has it."""

    def __init__(self) -> None:
        self.channels: frozenset[str] = frozenset()
        self.sent: deque[Message] = deque()  # on its way to PostgreSQL
        self.queue: deque[tuple[str, str]] = deque()  # on its way to the listener
        self.alive = True


class Postgres:
    """Commits in one order, which every session that LISTENs hears."""

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

    def execute(self, session: Session, message: Message, channels: frozenset[str]) -> None:
        """One statement of a listener's."""
        match message:
            case Marker(token, fingerprint):
                session.channels = channels | {MUX_CHANNEL}
                said: dict[str, object] = {"marker": token, "fingerprint": fingerprint}
            case Begin(token, fingerprint, floor, jitter, previous, why):
                epoch = max(self.clock_ms, floor) + jitter
                said = {
                    "begin": epoch,
                    "floor": floor,
                    "by": token,
                    "fingerprint": fingerprint,
                    "previous": previous,
                    "why": why,
                }
            case Canary(token):
                said = {"canary": token}
        self.notify(MUX_CHANNEL, json.dumps(said))


class Redis:
    """One master: the stream, the registry and what was published."""

    def __init__(self) -> None:
        self.up = True
        self.entries: list[Entry] = []
        self.published: list[bytes] = []
        self.registry: dict[str, float] = {}  # who beat when
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

    def append(self, request: Append) -> Appended:
        """`append.lua` (tests/integration/test_append.py holds the two together)."""
        head = self.head or NOTHING
        epoch, first = request.first
        if head.epoch > epoch:
            return Appended(Status.SUPERSEDED, head, 0)
        skip = 0
        if head.epoch == epoch:
            if first > head.sequence + 1:
                return Appended(Status.GAP, head, 0)
            skip = min(head.sequence - first + 1, len(request.texts))
        elif first != 1 and not request.restore:
            return Appended(Status.BEHIND, head, 0)
        for offset in range(skip, len(request.texts)):
            self.add(Entry(EventId(epoch, first + offset), request.texts[offset]), publish=not request.restore)
        return Appended(Status.OK, self.head or NOTHING, len(request.texts) - skip)

    def add(self, entry: Entry, *, publish: bool) -> None:
        """XADD, which refuses an id that is not above the last, and PUBLISH."""
        if self.head and entry.id <= self.head:
            raise Violation(f"Redis refuses {entry.id} after {self.head}")
        self.entries.append(entry)
        self.highest = max(self.highest, entry.id)
        if publish:
            self.published.append(entry.text)

    def after(self, position: EventId, limit: int) -> list[Entry]:
        low, high = 0, len(self.entries)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.entries[middle].id <= position else (low, middle)
        return self.entries[low : low + limit]


class Listener:
    """The shell around a `Numbering`, as `listener.forwarder` is, with every wait a step of its own."""

    def __init__(self, world: "World", name: str, *, extra: bool) -> None:
        self.world, self.name = world, name
        self.channels = frozenset([CHANNEL, EXTRA_CHANNEL] if extra else [CHANNEL])
        self.redis = world.redis
        self.running = True
        self.paused_until = self.starts_at = 0.0
        self.postgres_in = self.postgres_out = True  # the ways from and to PostgreSQL
        self.redis_way = "open"  # or "cut", or "deaf": carried out, but the answer is lost
        self.slow = False
        self.protected = False
        self._lives = 0
        self._fresh()

    def _fresh(self) -> None:
        self._lives += 1
        self.highest = 0
        self.earlier_self = self.redis.registry.get(self.name, 0.0)
        self.registered: float | None = None
        self.beat_due = 0.0
        self.numbering: Numbering | None = None
        self.session: Session | None = None
        self.request: Request | None = None
        self.answer: Answer | str | None = None

    def crash(self) -> None:
        if self.session:
            self.world.postgres.disconnect(self.session)
        self._fresh()
        self.starts_at = self.world.now + self.world.rng.choice([0.1, 1.0, 4.0])

    @property
    def count(self) -> Count | None:
        phase = self.numbering.phase if self.numbering else None
        return phase if isinstance(phase, Count) else None

    def step(self, now: float) -> None:
        if not self.running or now < self.starts_at or now < self.paused_until:
            return
        if self.slow and self.world.rng.random() < 0.8:
            return
        if self.request is not None:
            self._go_on(now)
            return
        numbering = self._connected()
        if numbering is None:
            self._beat(now)
            return
        self._hear(numbering, now)
        if numbering.lost(now):
            self._lose()
            return
        while message := numbering.to_postgres(now):
            assert self.session
            self.session.sent.append(message)
        self._beat(now)
        if self.redis_way == "cut" or not self.redis.up:
            numbering.redis_failed()
            return
        self.request = numbering.to_redis(now)
        if self.request and self.world.rng.random() < 0.7:
            self._go_on(now)

    def _connected(self) -> Numbering | None:
        if self.session and self.session.alive and self.numbering:
            return self.numbering
        self._lose()
        if not self.world.postgres_up or not self.postgres_in or not self.postgres_out:
            return None
        self.session = self.world.postgres.connect()
        self.numbering = self.world.make_numbering(self)
        return self.numbering

    def _lose(self) -> None:
        if self.numbering:
            self.highest = self.numbering.highest
        if self.session:
            self.world.postgres.disconnect(self.session)
        self.session = self.numbering = self.request = None

    def _hear(self, numbering: Numbering, now: float) -> None:
        assert self.session
        if not self.postgres_in:
            return
        queue = self.session.queue
        heard = [queue.popleft() for _ in range(min(len(queue), self.world.rng.choice([1, 5, 100])))]
        if heard:
            before = self._phase()
            numbering.hear([Heard(channel, payload.encode(), 0.0) for channel, payload in heard], now)
            self._note(before, "heard")

    def _go_on(self, now: float) -> None:
        """Carries the request out, in one step or two: a listener can be frozen, or die, in between."""
        assert self.request is not None
        if self.answer is None:
            reached = self.redis.up and self.redis_way != "cut"
            self.answer = self._perform(self.request, now) if reached else "failed"
            if self.redis_way == "deaf":
                self.answer = "failed"
            if self.world.rng.random() < 0.3:
                return
        request, answer = self.request, self.answer
        self.request = self.answer = None
        if self.numbering is None:
            return
        if answer == "failed":
            self.numbering.redis_failed()
            return
        before = self._phase()
        self.numbering.answered(request, None if answer == "nothing" else answer, now)  # type: ignore[arg-type]
        what = (
            f"{type(request).__name__} {answer.status.value}"
            if isinstance(answer, Appended)
            else type(request).__name__
        )
        self._note(before, what)

    def _perform(self, request: Request, now: float) -> Answer | str:
        redis = self.redis
        match request:
            case ReadHead():
                return redis.head or "nothing"
            case LookForOthers():
                return self._shows_others(now)
            case Scan(after, limit):
                return redis.after(after, limit)
            case Load(limit):
                return redis.entries[: -limit - 1 : -1]
            case ReadEntry(at):
                found = redis.after(EventId(at.epoch, at.sequence - 1), 1)
                return found[0].text if found and found[0].id == at else "nothing"
            case Append():
                self.world.check_identities(request)
                return redis.append(request)

    def _shows_others(self, now: float) -> bool:
        """As `listener.registry`."""
        if self.registered is None or self.name not in self.redis.registry:
            self.registered = self.redis.registry[self.name] = now
            return True
        others = {name: at for name, at in self.redis.registry.items() if name != self.name}
        if not others:
            return now - self.registered < 2
        latest = max([*others.values(), self.earlier_self])
        return any(latest - at < 5 for at in others.values())

    def _beat(self, now: float) -> None:
        if now >= self.beat_due and self.redis.up and self.redis_way != "cut":
            self.beat_due = now + 1.0
            if self.name not in self.redis.registry:
                self.registered = now
            self.redis.registry[self.name] = now

    def _phase(self) -> str:
        phase = self.numbering.phase if self.numbering else None
        if isinstance(phase, Count):
            hole = "/hole" if phase.to_redis(self.world.now) is None and phase.probe else ""
            return phase.role.value + hole
        if isinstance(phase, Search):
            return "searching" if phase.heard_marker else "marked"
        return "new"

    def _note(self, before: str, cause: str) -> None:
        after = self._phase()
        self.world.transitions[f"{before} -> {after} on {cause}" if before != after else f"{before} on {cause}"] += 1


class Worker:
    """The shell around a `Follower`, as `app.redis_source` is, and the account of what it delivered."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.redis = world.redis
        self.follower = Follower()
        self.heard_until = 0
        self.heard_at = 0.0
        self.connected = False
        self.paused_until = 0.0
        self.last: int | None = None  # the last event delivered
        self.excused = True  # a gap was announced since
        self.gaps = 0

    def reconnect(self) -> None:
        self.connected = False
        self.follower.interrupted()

    def step(self, now: float) -> None:
        if now < self.paused_until:
            return
        if not self.redis.up:
            self.reconnect()
            return
        if not self.connected:
            self.connected, self.heard_until = True, len(self.redis.published)
            self.follower.look()
        self._hear(now)
        if now - self.heard_at > 4:
            self.heard_at = now
            self.follower.look()
        if self.follower.due(now):
            self._read(now)

    def _hear(self, now: float) -> None:
        published = self.redis.published
        until = min(len(published), self.heard_until + self.world.rng.choice([1, 5, 100]))
        for text in published[self.heard_until : until]:
            if self.world.rng.random() < self.world.drops:
                continue
            self.heard_at = now
            before = self.follower.position
            self._take(self.follower.prompt(decode(text)), before)
        self.heard_until = until

    def _read(self, now: float) -> None:
        if self.follower.position is None:
            self._take(self.follower.start(self.redis.head), None)
        assert self.follower.position is not None
        found = self.redis.after(self.follower.position, 50)
        entries = [FollowedEntry(entry.id, decode(entry.text)) for entry in found]
        before = self.follower.position
        self._take(self.follower.read(entries, self.redis.head, now), before)
        if len(found) == 50:
            self.follower.look()

    def _take(self, outcomes: list[Event | Gap], before: EventId | None) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Gap):
                self.excused = True
                self.gaps += 1
                self.world.gap_announced(outcome, before)
            else:
                self.world.check_identity(outcome)
                if outcome.channel == CHANNEL:
                    self._deliver(int(bytes(outcome.payload)))

    def _deliver(self, number: int) -> None:
        if self.last is not None and number <= self.last:
            raise Violation(f"event {number} was delivered after {self.last}: twice or out of order")
        if not self.excused and self.last is not None and self.world.between(self.last, number):
            raise Violation(f"events between {self.last} and {number} are missing and no gap was announced")
        self.last, self.excused = number, False


class World:
    """Everything, and the promises."""

    def __init__(self, seed: int, *, transitions: Counter[str] | None = None) -> None:
        self.rng = Random(seed)
        self.transitions: Counter[str] = Counter() if transitions is None else transitions
        self.now = 0.0
        self.postgres, self.redis = Postgres(), Redis()
        self.masters = [self.redis]
        self.postgres_up = True
        self.drops = 0.0
        self.identities: dict[str, bytes] = {}
        self.others_events: set[int] = set()  # on the channel that not everybody LISTENs on
        # In a gentle world one listener is never harmed, so nobody may ever be told of a gap once it is aligned.
        self.gentle = self.rng.random() < 0.5
        mixed = not self.gentle and self.rng.random() < 0.2
        self.bounds = Bounds(1000, 1 << 20) if self.gentle else Bounds(self.rng.choice([60, 1000, 1000]), 1 << 20)
        self.listeners = [
            Listener(self, f"listener-{n}", extra=mixed and self.rng.random() < 0.5)
            for n in range(self.rng.randint(2, 5))
        ]
        self.workers = [Worker(self) for _ in range(2)]
        self.calm = False
        self.busy = True  # users commit
        self.trusting = False  # identities are not checked

    def make_numbering(self, listener: Listener) -> Numbering:
        uid = f"{self.rng.getrandbits(64):016x}"
        fingerprint = ",".join(sorted(listener.channels))
        return Numbering(uid, fingerprint, self.bounds, canary_interval=0.7, rng=self.rng, highest=listener.highest)

    # The promises.

    def check_identities(self, request: Append) -> None:
        for text in request.texts:
            self.check_identity(decode(text))

    def check_identity(self, event: Event) -> None:
        if event.id is not None and not self.trusting:
            what = event.channel.encode() + bytes(event.payload)
            if self.identities.setdefault(event.id, what) != what:
                raise Violation(f"{event.id} names {self.identities[event.id]!r} and {what!r}")

    def between(self, last: int, number: int) -> bool:
        return any(missing not in self.others_events for missing in range(last + 1, number))

    def gap_announced(self, gap: Gap, last: EventId | None) -> None:
        """Where one listener is never harmed, nobody is told of a gap.

        But for a worker that lags far behind a stream that is wiped: it may be put back by another listener, from a
        shorter memory.
        """
        lags = last is not None and self.masters[0].highest.sequence - last.sequence > FAR_BEHIND
        excused = gap.why == "events are missing in the stream" and lags
        if self.calm and not excused:
            raise Violation(f"a gap was announced although a listener was never harmed: {gap}")

    def check_quiet(self) -> None:
        """At the end of a quiet period everybody is where everybody else is."""
        primaries = [
            listener.name for listener in self.listeners if listener.count and listener.count.role is Role.PRIMARY
        ]
        if len(primaries) != 1:
            raise Violation(f"primaries after a quiet period: {primaries}")
        for worker in self.workers:
            if not _near(worker.follower.position, self.redis.head):
                raise Violation(f"a worker is at {worker.follower.position}, the stream at {self.redis.head}")
        newest = max(set(range(1, self.postgres.committed + 1)) - self.others_events, default=None)
        for worker in self.workers:
            if worker.last != newest:
                raise Violation(f"a worker delivered {worker.last} last, {newest} was committed last")
        for listener in self.listeners:
            if listener.count:
                self._check_held(listener.count)

    def _check_held(self, count: Count) -> None:
        for window in (count.buffer, count.memory):
            for text in window.batch(window.first, len(window), 1 << 30) if len(window) else []:
                self.check_identity(decode(text))

    # Time.

    def run(self, steps: int) -> None:
        """Troubled times, in three parts, each followed by a quiet one."""
        while not all(worker.last for worker in self.workers):
            self.tick()
        alike = len({listener.channels for listener in self.listeners}) == 1
        if alike and len({entry.id.epoch for entry in self.redis.entries}) > 1:
            raise Violation("two epochs were begun although nothing was harmed")
        if self.gentle:
            self._protect_one()
        for _ in range(3):
            for _ in range(steps // 3):
                if self.rng.random() < 0.15:
                    self.trouble()
                self.tick()
            self.heal()
            self.settle()
        self.check_last_words()

    def _protect_one(self) -> None:
        """One listener, which joins late, is not harmed from then on."""
        protected = self.rng.choice(self.listeners)
        protected.crash()
        while not (protected.count and protected.count.memory):
            self.tick()
        while not all(_near(worker.follower.position, self.redis.head) for worker in self.workers):
            self.tick()
        protected.protected = self.calm = True

    def check_last_words(self) -> None:
        """When every listener is gone, the workers still come to the end of the stream, whatever was not heard."""
        self.drops = 0.9
        for _ in range(20):
            self.tick()
        for listener in self.listeners:
            listener.running = False
        for _ in range(150):
            self.tick()
        if any(worker.follower.position != self.redis.head for worker in self.workers):
            raise Violation("a worker never read the end of the stream")

    def settle(self) -> None:
        """Untroubled time: within it, at most some twenty seconds, everybody must come to agree."""
        for patience in (4, 3, 2, 1, 0):
            for busy, steps in ((True, 60), (False, 15)):
                self.busy = busy
                for _ in range(steps):
                    self.tick()
            try:
                self.check_quiet()
            except Violation:
                if not patience:
                    raise
            else:
                break
        self.busy = True

    def tick(self) -> None:
        rng = self.rng
        self.now += rng.choice([0.01, 0.05, 0.2])
        self.postgres.clock_ms += 100
        if self.busy and self.postgres_up and rng.random() < 0.5:
            for _ in range(rng.choice([1, 1, 2, 20])):
                channel = EXTRA_CHANNEL if rng.random() < 0.1 else CHANNEL
                self.postgres.commit_event(channel)
                if channel == EXTRA_CHANNEL:
                    self.others_events.add(self.postgres.committed)
        actors = self._actors()
        rng.shuffle(actors)
        for actor in actors:
            if isinstance(actor, Listener):
                self._carry(actor)
            actor.step(self.now)

    def _actors(self) -> list[Listener | Worker]:
        return [*self.listeners, *self.workers]

    def _carry(self, listener: Listener) -> None:
        session = listener.session
        if session and session.alive and listener.postgres_out and self.rng.random() < 0.7:
            while session.sent:
                self.postgres.execute(session, session.sent.popleft(), listener.channels)

    # Trouble.

    def trouble(self) -> None:
        kinds = dict(self._troubles())
        kinds[self.rng.choice(sorted(kinds))]()

    def _troubles(self) -> Iterator[tuple[str, Callable[[], object]]]:
        rng = self.rng
        harmed = [listener for listener in self.listeners if not listener.protected]
        one = rng.choice(harmed)
        yield "crash", one.crash
        yield "pause", lambda: setattr(one, "paused_until", self.now + rng.choice([0.5, 2, 8]))
        yield "slow", lambda: setattr(one, "slow", True)
        yield "cut from PostgreSQL", lambda: setattr(one, rng.choice(["postgres_in", "postgres_out"]), False)
        yield "cut from Redis", lambda: setattr(one, "redis_way", rng.choice(["cut", "deaf"]))
        yield "session ended", lambda: self._end_session(one)
        yield (
            "worker paused",
            lambda: setattr(rng.choice(self.workers), "paused_until", self.now + rng.choice([0.5, 5])),
        )
        yield "worker reconnects", lambda: rng.choice(self.workers).reconnect()
        yield "messages lost", lambda: setattr(self, "drops", 0.3)
        yield "Redis away", lambda: setattr(self.redis, "up", False)
        yield "Redis back", lambda: setattr(self.redis, "up", True)
        yield "Redis wiped", self.redis.wipe
        yield (
            "clock jumps",
            lambda: setattr(
                self.postgres, "clock_ms", max(1, self.postgres.clock_ms + rng.choice([-900_000, 900_000]))
            ),
        )
        yield "healed", self.heal
        yield "Redis is an older copy", self._older_copy
        yield "Redis wiped under a worker", self._wipe_under_a_worker
        yield "all others crash", lambda: self._crash(harmed)
        if not self.gentle:
            yield "split", self._split
            yield "PostgreSQL restarts", self._restart_postgres

    def _end_session(self, listener: Listener) -> None:
        if listener.session:
            self.postgres.disconnect(listener.session)

    def _restart_postgres(self) -> None:
        self.postgres_up = False
        for session in list(self.postgres.sessions):
            self.postgres.disconnect(session)

    def _older_copy(self) -> None:
        lost = self.rng.randint(0, FAR_BEHIND // 2 if self.gentle else len(self.redis.entries))
        self._move_all(self.redis.copy(max(0, len(self.redis.entries) - lost)))

    @staticmethod
    def _crash(listeners: list[Listener]) -> None:
        for listener in listeners:
            listener.crash()

    def _wipe_under_a_worker(self) -> None:
        self.rng.choice(self.workers).paused_until = self.now + 1
        for _ in range(3):
            self.tick()
        self.redis.wipe()

    def _split(self) -> None:
        other = self.redis.copy(self.rng.randint(len(self.redis.entries) // 2, len(self.redis.entries)))
        self.masters.append(other)
        for actor in self._actors():
            if self.rng.random() < 0.5:
                self._move(actor, other)

    def _move_all(self, redis: Redis) -> None:
        self.redis = redis
        self.masters = [redis]
        for actor in self._actors():
            self._move(actor, redis)

    @staticmethod
    def _move(actor: Listener | Worker, redis: Redis) -> None:
        if actor.redis is not redis:
            actor.redis = redis
            if isinstance(actor, Worker):
                actor.reconnect()

    def heal(self) -> None:
        """Everything works again; what happened stays."""
        self.postgres_up, self.drops = True, 0.0
        if len(self.masters) > 1:
            self._move_all(self.rng.choice(self.masters))
        self.redis.up = True
        for listener in self.listeners:
            listener.running, listener.slow, listener.redis_way = True, False, "open"
            listener.postgres_in = listener.postgres_out = True
            listener.paused_until = min(listener.paused_until, self.now)
        for worker in self.workers:
            worker.paused_until = min(worker.paused_until, self.now)


def _near(position: EventId | None, head: EventId | None) -> bool:
    """Whether only a last canary can be between them."""
    return (
        position is not None
        and head is not None
        and position.epoch == head.epoch
        and 0 <= head.sequence - position.sequence <= 10
    )
