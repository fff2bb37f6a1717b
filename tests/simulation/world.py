"""A simulated world: PostgreSQL, Redis, listeners and workers, and the faults that happen to them.

The listeners run the product's `Forwarder`, the workers its `SequenceTracker`; everything else is simulated. One random
generator drives it all, so a seed determines a schedule, and a failing schedule can be replayed.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from random import Random

import psycopg

from listener.sequencer.active import Active, Role
from listener.sequencer.process_state import BufferSize
from listener.sequencer.redis_requests import Append
from notifymux.event import Event, EventId, decode
from notifymux.progress_timeout import TAKEOVER_TIMEOUT_SECONDS
from notifymux.sequence_tracker import Gap, GapReason
from tests.simulation.faults import FAR_BEHIND, FAULTS, Fault
from tests.simulation.listener import Listener
from tests.simulation.postgres import CHANNEL, EXTRA_CHANNEL, Postgres
from tests.simulation.redis import NOTHING, Redis
from tests.simulation.violation import Violation
from tests.simulation.worker import Worker

MANY = 10  # listeners may hold a session: all do
LEAVING_SECONDS = 10.0  # within which one that ends is known to be gone


class World:
    """All servers and processes, and the guarantees that are checked after every step.

    Args:
        seed: determines the schedule.
        transitions: counts what the listeners' phases did.
        kind: "rough"; "gentle", where one listener has no faults of its own; or "lone", with one listener, and faults
            that lose nothing. In the latter two no gap may be announced. Drawn by default.
    """

    KINDS: Sequence[str] = ("gentle", "gentle", "rough", "rough", "lone")
    FAULTS: Mapping[str, Fault] = FAULTS
    LISTENER: type[Listener] = Listener
    MAX_LISTENERS = 5

    def __init__(self, seed: int, *, transitions: Counter[str] | None = None, kind: str | None = None) -> None:
        rng: Random = Random(seed)
        self.rng: Random = rng
        self.transitions: Counter[str] = Counter() if transitions is None else transitions
        self.kind = kind or rng.choice(self.KINDS)
        self.now = 0.0
        self.postgres: Postgres = self._new_server()
        self.redis = Redis(lambda: self.wall)
        self.old_servers: list[Postgres] = []  # primaries that were replaced, and live on
        self.address = "primary"  # where DB_HOST leads: there, or to a standby, or to the primary before
        self.masters = [self.redis]
        self.drops = self.answers_lost = 0.0
        self.identities: dict[str, bytes] = {}
        # Of another generator, so that the other choices of a seed stay as they are.
        self.listeners_max = Random(f"reserves of {seed}").choice([2, MANY, MANY])
        mixed = self.kind == "rough" and rng.random() < 0.2
        self.limits = BufferSize(rng.choice([150, 1000, 1000]) if self.kind == "rough" else 1000, 1 << 20)
        self.listeners: list[Listener] = [
            self.LISTENER(self, f"listener-{n}", extra=mixed and rng.random() < 0.5)
            for n in range(1 if self.kind == "lone" else rng.randint(2, self.MAX_LISTENERS))
        ]
        # One hears the feed of a listener, the other one Redis only.
        self.workers: list[Worker] = [Worker(self, self.listeners[-1]), Worker(self, None)]
        self.calm = False  # from now on no gap may be announced
        self.stream_lost_at = deque([-100.0, -100.0], maxlen=2)
        self.stalled_from = -100.0  # when what follows began
        self.stalled_at = -100.0  # until then, commits stalled or Redis refused to write
        self.answer_lost_at = -100.0  # of the listener that has no faults of its own
        self.busy = True  # users commit
        self.appended = NOTHING  # the highest id of the streams' heads
        self.checks_identities = True
        self._faulty = self._in_request = False
        self.faults = self._draw_faults()

    def _new_server(self) -> Postgres:
        return Postgres()

    def _draw_faults(self) -> list[str]:
        """The faults that this schedule may use: a few at a time meet more often than many do."""
        share = self.rng.choice([0.2, 0.5, 1.0])
        drawn = [name for name in self.FAULTS if self._may_happen(name) and self.rng.random() < share]
        return [*drawn, "healed"]

    def _may_happen(self, name: str) -> bool:
        fault = self.FAULTS[name]
        return (self.kind != "gentle" or fault.is_gentle) and (self.kind != "lone" or fault.is_harmless)

    @property
    def wall(self) -> float:
        """The clock of Redis and of the pods, Unix seconds."""
        return 1000.0 + self.now

    def resolve(self) -> Postgres:
        """The server to which DB_HOST leads."""
        server = self.old_servers[-1] if self.address == "old" and self.old_servers else self.postgres
        if not server.up:
            raise psycopg.OperationalError("connection refused")
        if self.address == "standby":
            raise psycopg.OperationalError("session is read-only")
        return server

    def loses_answer(self, listener: Listener) -> bool:
        is_lost = self.rng.random() < self.answers_lost
        if is_lost and listener.protected:
            self.answer_lost_at = self.now
        return is_lost

    def tick_within_request(self, listener: Listener) -> None:
        """While a listener waits for Redis, the others go on, and faults happen."""
        if not self._faulty or self._in_request or self.rng.random() >= 0.03:
            return
        self._in_request = True
        try:
            for _ in range(self.rng.choice([1, 3] if listener.protected else [1, 3, 10])):
                if self.rng.random() < 0.1:
                    self.fault()
                self.tick()
        finally:
            self._in_request = False

    # The guarantees.

    def check_identities(self, request: Append) -> None:
        for text in request.texts:
            self.check_identity(decode(text))

    def check_fed(self, lines: list[bytes]) -> None:
        """Check what a listener feeds; the worker that hears it checks the rest."""

    def check_identity(self, event: Event) -> None:
        if event.id is not None and self.checks_identities:
            what = event.channel.encode() + bytes(event.payload)
            if self.identities.setdefault(event.id, what) != what:
                raise Violation(f"{event.id} names {self.identities[event.id]!r} and {what!r}")

    def between(self, last: int, number: int) -> bool:
        return any(missing not in self.postgres.extra_events for missing in range(last + 1, number))

    def gap_announced(self, gap: Gap, last: EventId | None) -> None:
        """In a calm world no gap may be announced.

        The exceptions are a worker far behind a stream that is wiped: another listener may restore the stream from a
        replay window that does not reach back so far; and times at which nobody can append, or be sure that it did.
        """
        lags = last is not None and self.masters[0].highest.sequence - last.sequence > FAR_BEHIND
        excused = gap.why is GapReason.EVENTS_MISSING and lags
        if gap.why is GapReason.EVENTS_MISSING and self.now - self.stream_lost_at[0] < TAKEOVER_TIMEOUT_SECONDS + 2:
            excused = True  # the stream was lost twice within the time for which a worker waits
        # While commits stall, Redis refuses to write, or its answers are lost, nobody restores a stream for sure. Then
        # a listener that finds its head still may begin an epoch.
        sure_for = self.now - max(self.stalled_at, self.answer_lost_at)
        if gap.why is GapReason.EPOCH:
            since = self.stalled_from if sure_for < 2 * TAKEOVER_TIMEOUT_SECONDS else self.now
            lost_for = since - self.stream_lost_at[-1]
            excused = max(sure_for, lost_for) < 2 * TAKEOVER_TIMEOUT_SECONDS
        if self.calm and not excused:
            raise Violation(f"a gap was announced although one listener had no faults: {gap}")

    def check_quiet(self) -> None:
        """At the end of a quiet period there is one primary, and every worker is at the stream's head."""
        primaries = [listener.name for listener in self.listeners if listener.active and self._appends(listener.active)]
        if len(primaries) != 1:
            raise Violation(f"primaries after a quiet period: {primaries}")
        for worker in self.workers:
            if not _near(worker.tracker.position, self.redis.head):
                raise Violation(f"a worker is at {worker.tracker.position}, the stream at {self.redis.head}")
        newest = max(set(range(1, self.postgres.committed + 1)) - self.postgres.extra_events, default=None)
        for worker in self.workers:
            if worker.last != newest:
                raise Violation(f"a worker delivered {worker.last} last, {newest} was committed last")
        for listener in self.listeners:
            if listener.active:
                self._check_windows(listener.active)
        self._check_holders()

    def _check_holders(self) -> None:
        """As many as may hold a session do (rule 16); with several sets of channels those of each set do."""
        if self.listeners_max == MANY or len({listener.channels for listener in self.listeners}) > 1:
            return
        running = [listener for listener in self.listeners if listener.running and listener.starts_at <= self.now]
        holders = [listener.name for listener in running if listener.holds]
        if len(holders) != min(len(running), self.listeners_max):
            raise Violation(f"after a quiet period a session is held by {holders}, of {len(running)} listeners")

    def check_leaving(self, leaving: Listener) -> None:
        """A listener leaves its place only to others that have been aligned not long ago (rule 18)."""
        others = [
            other for other in self.listeners if other is not leaving and self.now - other.held_at < LEAVING_SECONDS
        ]
        if len(others) < self.listeners_max:
            raise Violation(f"{leaving.name} leaves its place to {[other.name for other in others]}")
        if leaving.protected:
            self.calm = False  # what it left to others may be lost with them

    @staticmethod
    def _appends(active: Active) -> bool:
        return active.role is Role.PRIMARY

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
        self._prepare()
        self.calm = self.kind != "rough"
        for _ in range(3):
            self._faulty = True
            for _ in range(steps // 3):
                if self.rng.random() < 0.15:
                    self.fault()
                self.tick()
            self._faulty = False
            self.heal()
            self.settle()
        self.check_last_events()

    def _prepare(self) -> None:
        """In a gentle world one listener, which joins late, has no faults from then on."""
        if self.kind != "gentle":
            return
        protected = self.rng.choice(self.listeners)
        if self.listeners_max == MANY:
            protected.crash()
        else:
            while not (active := [listener for listener in self.listeners if listener.active]):
                self.tick()
            protected = min(active, key=lambda listener: listener.reserves._age)
        while not (protected.active and protected.active.replay_window):
            self.tick()
        while not all(_near(worker.tracker.position, self.redis.head) for worker in self.workers):
            self.tick()
        protected.protected = True

    def check_last_events(self) -> None:
        """After every listener has ended, the workers still reach the end of the stream, though messages were lost.

        One that was fed what nobody appends any more is beyond the end, and that is no gap.
        """
        self.drops = 0.9
        for _ in range(20):
            self.tick()
        for listener in self.listeners:
            listener.running = False
            listener.feed.close()
        for _ in range(150):
            self.tick()
        head = self.redis.head or NOTHING
        if any((worker.tracker.position or NOTHING) < head for worker in self.workers):
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
        self.now += (seconds := rng.choice([0.01, 0.05, 0.2]))
        if not self.redis.up:  # nobody's timeout runs
            self.stream_lost_at = deque((at + seconds for at in self.stream_lost_at), maxlen=2)
        for server in (self.postgres, *self.old_servers):
            server.clock_ms += 100
            server.pump(self.now)
        if self.busy and self.postgres.up and rng.random() < 0.5:
            for _ in range(rng.choice([1, 1, 2, 20])):
                self.postgres.commit_event(EXTRA_CHANNEL if rng.random() < 0.1 else CHANNEL, self.now)
        if self.postgres.is_stalled(self.now) or self.redis.refusal:
            if self.now - self.stalled_at > TAKEOVER_TIMEOUT_SECONDS:
                self.stalled_from = self.now
            self.stalled_at = self.now
        actors = self.actors()
        rng.shuffle(actors)
        for actor in actors:
            if isinstance(actor, Listener) and rng.random() < 0.7:
                actor.transmit()
            actor.step(self.now)

    def actors(self) -> list[Listener | Worker]:
        return [*self.listeners, *self.workers]

    # Faults.

    def fault(self) -> None:
        one = self.rng.choice([listener for listener in self.listeners if not listener.protected])
        self.FAULTS[self.rng.choice(self.faults)].happen(self, one)

    def move_all(self, redis: Redis) -> None:
        self.redis = redis
        self.masters = [redis]
        for actor in self.actors():
            self.move(actor, redis)

    @staticmethod
    def move(actor: Listener | Worker, redis: Redis) -> None:
        if actor.redis is not redis:
            actor.redis = redis
            if isinstance(actor, Worker):
                actor.reconnect()

    def heal(self) -> None:
        """End all faults; what they lost stays lost."""
        self.drops = self.answers_lost = 0.0
        self.postgres.up, self.postgres.standby_away, self.postgres.stalled_until = True, False, self.now
        self.address = "primary"
        self._end_old_servers()
        if len(self.masters) > 1:
            self.move_all(self.rng.choice(self.masters))
        self.redis.up, self.redis.refusal = True, ""
        for listener in self.listeners:
            listener.running, listener.slow, listener.redis_path, listener.clock_error = True, False, "open", 0.0
            listener.postgres_in = listener.postgres_out = True
            listener.calls_are_silent = False
            listener.paused_until = min(listener.paused_until, self.now)
        for worker in self.workers:
            worker.paused_until = min(worker.paused_until, self.now)

    def _end_old_servers(self) -> None:
        """An old primary may live on as long as a listener is at work at the new one, to which the others yield."""
        moved = any(
            listener.active and listener.session and listener.session.backend.server is self.postgres
            for listener in self.listeners
        )
        if not moved or self.rng.random() < 0.5:
            for server in self.old_servers:
                server.up = False
                server.shut_down()
            self.old_servers.clear()


def _near(position: EventId | None, head: EventId | None) -> bool:
    """Whether at most the last canaries are between them; a worker that is fed may be ahead of the stream."""
    return (
        position is not None
        and head is not None
        and position.epoch == head.epoch
        and abs(head.sequence - position.sequence) <= 10
    )
