"""A small world: PostgreSQL's order, Redis' script, listeners and workers, and whatever may befall them.

The listeners run the product's `Sequencer`, the workers its `SequenceTracker`; everything else is simulated, driven by
one random generator, so that a seed is a schedule and a failing one can be replayed.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from random import Random

from app.core.progress_timeout import TAKEOVER_TIMEOUT_SECONDS
from app.sources.sequence_tracker import Gap
from listener.sequencer.active import Active, Role
from listener.sequencer.redis_requests import (
    Append,
)
from listener.sequencer.sequencer import BufferLimits, Sequencer
from listener.stats import ListenerStats
from notifymux.event import Event, EventId, decode
from tests.simulation.actors import Listener, Worker
from tests.simulation.servers import CHANNEL, EXTRA_CHANNEL, Postgres, Redis, Violation

FAR_BEHIND = 60  # events


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
        self.bounds = (
            BufferLimits(1000, 1 << 20) if self.gentle else BufferLimits(self.rng.choice([150, 1000, 1000]), 1 << 20)
        )
        self.listeners = [
            Listener(self, f"listener-{n}", extra=mixed and self.rng.random() < 0.5)
            for n in range(self.rng.randint(2, 5))
        ]
        self.workers = [Worker(self) for _ in range(2)]
        self.calm = False
        self.disturbed = deque([-100.0, -100.0], maxlen=2)  # when the stream was last lost
        self.busy = True  # users commit
        self.trusting = False  # identities are not checked

    def make_numbering(self, listener: Listener) -> Sequencer:
        uid = f"{self.rng.getrandbits(64):016x}"
        fingerprint = ",".join(sorted(listener.channels))
        return Sequencer(
            uid,
            fingerprint,
            self.bounds,
            canary_interval=0.7,
            rng=self.rng,
            tally=ListenerStats(),
            highest=listener.highest,
        )

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
        if gap.why != "a new epoch began" and self.now - self.disturbed[0] < TAKEOVER_TIMEOUT_SECONDS + 2:
            excused = True  # the stream was lost twice within the bound for which a worker waits
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
            if not _near(worker.tracker.position, self.redis.head):
                raise Violation(f"a worker is at {worker.tracker.position}, the stream at {self.redis.head}")
        newest = max(set(range(1, self.postgres.committed + 1)) - self.others_events, default=None)
        for worker in self.workers:
            if worker.last != newest:
                raise Violation(f"a worker delivered {worker.last} last, {newest} was committed last")
        for listener in self.listeners:
            if listener.count:
                self._check_held(listener.count)

    def _check_held(self, count: Active) -> None:
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
        while not all(_near(worker.tracker.position, self.redis.head) for worker in self.workers):
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
        if any(worker.tracker.position != self.redis.head for worker in self.workers):
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
        yield "Redis wiped", self._wipe
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
        self.disturbed.append(self.now)
        self._move_all(self.redis.copy(max(0, len(self.redis.entries) - lost)))

    @staticmethod
    def _crash(listeners: list[Listener]) -> None:
        for listener in listeners:
            listener.crash()

    def _wipe_under_a_worker(self) -> None:
        self.rng.choice(self.workers).paused_until = self.now + 1
        for _ in range(3):
            self.tick()
        self._wipe()

    def _wipe(self) -> None:
        # Not one of two masters: who knew nothing of the epoch would begin on it, and what the others number meanwhile
        # has two ids, and is heard again after the gap. docs/numbering.md says so.
        if len(self.masters) == 1:
            self.disturbed.append(self.now)
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
