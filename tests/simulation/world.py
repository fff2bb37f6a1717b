"""A simulated world: PostgreSQL, Redis, listeners and workers, and the faults that happen to them.

The listeners run the product's `Sequencer`, the workers its `SequenceTracker`; everything else is simulated. One random
generator drives it all, so a seed determines a schedule, and a failing schedule can be replayed.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from random import Random

from app.core.progress_timeout import TAKEOVER_TIMEOUT_SECONDS
from app.sources.sequence_tracker import Gap
from listener.sequencer.active import Active, Role
from listener.sequencer.process_state import BufferSize
from listener.sequencer.redis_requests import Append
from listener.sequencer.sequencer import Sequencer
from notifymux.event import Event, EventId, decode
from tests.simulation.actors import Listener, Worker
from tests.simulation.servers import CHANNEL, EXTRA_CHANNEL, Postgres, Redis, Violation

FAR_BEHIND = 60  # events


class World:
    """All servers and processes, and the guarantees that are checked after every step."""

    def __init__(self, seed: int, *, transitions: Counter[str] | None = None) -> None:
        self.rng = Random(seed)
        self.transitions: Counter[str] = Counter() if transitions is None else transitions
        self.now = 0.0
        self.postgres, self.redis = Postgres(), Redis()
        self.masters = [self.redis]
        self.postgres_up = True
        self.drops = 0.0
        self.identities: dict[str, bytes] = {}
        self.extra_events: set[int] = set()  # on the channel that not every listener LISTENs on
        # In a gentle world one listener has no faults, so no gap may be announced once it is aligned.
        self.gentle = self.rng.random() < 0.5
        mixed = not self.gentle and self.rng.random() < 0.2
        self.limits = (
            BufferSize(1000, 1 << 20) if self.gentle else BufferSize(self.rng.choice([150, 1000, 1000]), 1 << 20)
        )
        self.listeners = [
            Listener(self, f"listener-{n}", extra=mixed and self.rng.random() < 0.5)
            for n in range(self.rng.randint(2, 5))
        ]
        self.workers = [Worker(self) for _ in range(2)]
        self.calm = False  # from now on no gap may be announced
        self.stream_lost_at = deque([-100.0, -100.0], maxlen=2)
        self.busy = True  # users commit
        self.checks_identities = True

    def make_sequencer(self, listener: Listener) -> Sequencer:
        return Sequencer(f"{self.rng.getrandbits(64):016x}", listener.process)

    # The guarantees.

    def check_identities(self, request: Append) -> None:
        for text in request.texts:
            self.check_identity(decode(text))

    def check_identity(self, event: Event) -> None:
        if event.id is not None and self.checks_identities:
            what = event.channel.encode() + bytes(event.payload)
            if self.identities.setdefault(event.id, what) != what:
                raise Violation(f"{event.id} names {self.identities[event.id]!r} and {what!r}")

    def between(self, last: int, number: int) -> bool:
        return any(missing not in self.extra_events for missing in range(last + 1, number))

    def gap_announced(self, gap: Gap, last: EventId | None) -> None:
        """In a calm world no gap may be announced.

        The exception is a worker far behind a stream that is wiped: another listener may restore the stream from a
        replay window that does not reach back so far.
        """
        lags = last is not None and self.masters[0].highest.sequence - last.sequence > FAR_BEHIND
        excused = gap.why == "events are missing in the stream" and lags
        if gap.why != "a new epoch began" and self.now - self.stream_lost_at[0] < TAKEOVER_TIMEOUT_SECONDS + 2:
            excused = True  # the stream was lost twice within the time for which a worker waits
        if self.calm and not excused:
            raise Violation(f"a gap was announced although one listener had no faults: {gap}")

    def check_quiet(self) -> None:
        """At the end of a quiet period there is one primary, and every worker is at the stream's head."""
        primaries = [
            listener.name for listener in self.listeners if listener.active and listener.active.role is Role.PRIMARY
        ]
        if len(primaries) != 1:
            raise Violation(f"primaries after a quiet period: {primaries}")
        for worker in self.workers:
            if not _near(worker.tracker.position, self.redis.head):
                raise Violation(f"a worker is at {worker.tracker.position}, the stream at {self.redis.head}")
        newest = max(set(range(1, self.postgres.committed + 1)) - self.extra_events, default=None)
        for worker in self.workers:
            if worker.last != newest:
                raise Violation(f"a worker delivered {worker.last} last, {newest} was committed last")
        for listener in self.listeners:
            if listener.active:
                self._check_windows(listener.active)

    def _check_windows(self, active: Active) -> None:
        for window in (active.buffer, active.replay_window):
            for text in window.batch(window.first, len(window), 1 << 30) if len(window) else []:
                self.check_identity(decode(text))

    # Time.

    def run(self, steps: int) -> None:
        """Three periods with faults, each followed by a quiet one."""
        while not all(worker.last for worker in self.workers):
            self.tick()
        alike = len({listener.channels for listener in self.listeners}) == 1
        if alike and len({entry.id.epoch for entry in self.redis.entries}) > 1:
            raise Violation("two epochs were begun although there was no fault")
        if self.gentle:
            self._protect_one()
        for _ in range(3):
            for _ in range(steps // 3):
                if self.rng.random() < 0.15:
                    self.fault()
                self.tick()
            self.heal()
            self.settle()
        self.check_last_events()

    def _protect_one(self) -> None:
        """One listener, which joins late, has no faults from then on."""
        protected = self.rng.choice(self.listeners)
        protected.crash()
        while not (protected.active and protected.active.replay_window):
            self.tick()
        while not all(_near(worker.tracker.position, self.redis.head) for worker in self.workers):
            self.tick()
        protected.protected = self.calm = True

    def check_last_events(self) -> None:
        """After every listener has ended, the workers still reach the end of the stream, though messages were lost."""
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
        """A period without faults: within some twenty seconds every listener and worker must agree."""
        for tries_left in (4, 3, 2, 1, 0):
            for busy, steps in ((True, 60), (False, 15)):
                self.busy = busy
                for _ in range(steps):
                    self.tick()
            try:
                self.check_quiet()
            except Violation:
                if not tries_left:
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
                    self.extra_events.add(self.postgres.committed)
        actors = self._actors()
        rng.shuffle(actors)
        for actor in actors:
            if isinstance(actor, Listener):
                self._deliver_sent(actor)
            actor.step(self.now)

    def _actors(self) -> list[Listener | Worker]:
        return [*self.listeners, *self.workers]

    def _deliver_sent(self, listener: Listener) -> None:
        session = listener.session
        if session and session.alive and listener.postgres_out and self.rng.random() < 0.7:
            while session.sent:
                self.postgres.execute(session, session.sent.popleft(), listener.channels)

    # Faults.

    def fault(self) -> None:
        kinds = dict(self._faults())
        kinds[self.rng.choice(sorted(kinds))]()

    def _faults(self) -> Iterator[tuple[str, Callable[[], object]]]:
        rng = self.rng
        unprotected = [listener for listener in self.listeners if not listener.protected]
        one = rng.choice(unprotected)
        yield "crash", one.crash
        yield "pause", lambda: setattr(one, "paused_until", self.now + rng.choice([0.5, 2, 8]))
        yield "slow", lambda: setattr(one, "slow", True)
        yield "cut from PostgreSQL", lambda: setattr(one, rng.choice(["postgres_in", "postgres_out"]), False)
        yield "cut from Redis", lambda: setattr(one, "redis_path", rng.choice(["cut", "deaf"]))
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
        yield "all others crash", lambda: self._crash(unprotected)
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
        self.stream_lost_at.append(self.now)
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
        # Not while there are two masters: a listener that doesn't know the epoch would begin another one on the wiped
        # master, and events of this time would have two ids (docs/numbering.md, "What is not guaranteed").
        if len(self.masters) == 1:
            self.stream_lost_at.append(self.now)
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
        """End all faults; what they lost stays lost."""
        self.postgres_up, self.drops = True, 0.0
        if len(self.masters) > 1:
            self._move_all(self.rng.choice(self.masters))
        self.redis.up = True
        for listener in self.listeners:
            listener.running, listener.slow, listener.redis_path = True, False, "open"
            listener.postgres_in = listener.postgres_out = True
            listener.paused_until = min(listener.paused_until, self.now)
        for worker in self.workers:
            worker.paused_until = min(worker.paused_until, self.now)


def _near(position: EventId | None, head: EventId | None) -> bool:
    """Whether at most the last canaries are between them."""
    return (
        position is not None
        and head is not None
        and position.epoch == head.epoch
        and 0 <= head.sequence - position.sequence <= 10
    )
