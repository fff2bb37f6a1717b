"""A world so small that all its schedules can be tried: 2 listeners, 1 worker, 3 commits, at most 2 faults.

Nothing is random: what happens is a sequence of actions, which its user chooses.
"""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from tests.simulation.freezing import freeze
from tests.simulation.listener import Listener
from tests.simulation.postgres import CHANNEL
from tests.simulation.violation import Violation
from tests.simulation.worker import Worker
from tests.simulation.world import MANY, World

COMMITS = 3
ROUND_SECONDS = 0.5
LONG_WAIT = 9  # rounds: longer than a takeover timeout, and than the time after which a listener is taken for dead
SETTLE = 50  # rounds in which everything must be repaired


class NoChance(Random):
    """Always the last of a choice, nothing that only may happen, and numbers that are new each time."""

    numbers = 0

    def random(self) -> float:
        return 0.999

    def choice(self, seq: Any) -> Any:
        return seq[-1]

    def uniform(self, a: float, b: float) -> float:
        return b if self._next() % 2 else a

    def randrange(self, start: int, *_: Any) -> int:
        return self._next() % start

    def getrandbits(self, k: int) -> int:
        return self._next()

    def shuffle(self, x: Any) -> None:
        """Keep the order."""

    def _next(self) -> int:
        self.numbers += 1
        return self.numbers


class SmallWorld(World):
    """Starts with two aligned listeners, the first of which is primary and feeds a worker at the stream's head."""

    NAMES, MOST = "AB", MANY

    def __init__(self, faults: int) -> None:
        super().__init__(0, kind="rough")
        self.rng = NoChance()
        self.postgres = self._new_server()
        self.listeners_max = self.MOST
        self.listeners = [self.LISTENER(self, name, extra=False) for name in self.NAMES]
        self.workers = [Worker(self, self.listeners[0])]
        self.commits_left, self.faults_left = COMMITS, faults
        self.waits_left = 1
        self._touched: set[str] = set()  # listeners with faults of their own
        self._losing = 0  # faults that may need a gap
        self._frozen_in_request: Listener | None = None
        self._refuses_at_commit = False
        # A listener that has stopped: the first one begins an epoch at once.
        self.redis.hashes["{sim}:listener:X:0"] = {"pod": "X", "program": "listener", "state": "stopped"}
        self.redis.expires["{sim}:listener:X:0"] = self.wall + 60
        while not self._is_settled():
            self.pass_rounds(1)

    # Actions.

    def actions(self) -> dict[str, Callable[[], object]]:
        """What can happen next."""
        a, b, *_ = self.listeners
        actions: dict[str, Callable[[], object]] = {
            "A": partial(self._step, a),
            "B": partial(self._step, b),
            "worker": partial(self.workers[0].step, self.now),
        }
        if self.commits_left:
            actions["commit"] = self._commit
        if self.waits_left:
            actions["wait"] = self._wait
        if self.faults_left:
            actions |= {name: partial(self._fault, happen) for name, happen in self._faults().items()}
        return actions

    def _faults(self) -> dict[str, Callable[[], object]]:
        faults: dict[str, Callable[[], object]] = {
            "Redis wiped": self._wipe,
            "Redis refuses": partial(setattr, self.redis, "refusal", "READONLY"),
            "commits stall": partial(setattr, self.postgres, "standby_away", True),
            "worker hears nothing": self._deafen_worker,
            "PostgreSQL fails over": self._fail_over,
        }
        for one in self.listeners:
            own = {
                "crashes": partial(one.crash, for_seconds=1.0),
                "frozen": partial(setattr, one, "paused_until", self.now + 100),
                "frozen in a request": partial(setattr, self, "_frozen_in_request", one),
                "loses answers": partial(setattr, one, "redis_path", "deaf"),
                "cut from Redis": partial(setattr, one, "redis_path", "cut"),
                "loses its session": partial(self._end_session, one),
            }
            faults |= {f"{one.name} {name}": partial(self._touch, one, happen) for name, happen in own.items()}
        return faults

    def _fault(self, happen: Callable[[], object]) -> None:
        self.faults_left -= 1
        happen()
        self.calm = len(self._touched) + self._losing <= 1

    def _touch(self, one: Listener, happen: Callable[[], object]) -> None:
        self._touched.add(one.name)
        happen()

    def _step(self, one: Listener) -> None:
        one.transmit()
        one.step(self.now)

    def _commit(self) -> None:
        self.commits_left -= 1
        self.postgres.commit_event(CHANNEL, self.now)

    def _wait(self) -> None:
        self.waits_left -= 1
        self.pass_rounds(LONG_WAIT)

    def _wipe(self) -> None:
        self.stream_lost_at.append(self.now)
        self.redis.wipe()

    def _deafen_worker(self) -> None:
        self.workers[0].heard_until = len(self.redis.published)

    def _end_session(self, one: Listener) -> None:
        if one.session:
            self.postgres.disconnect(one.session.backend)

    def _fail_over(self) -> None:
        self._losing = 2
        self.old_servers.append(self.postgres)
        self.postgres = self.postgres.promote()
        for backend in self.old_servers[-1].backends[:1]:
            self.old_servers[-1].disconnect(backend)

    # Time.

    def tick_within_request(self, listener: Listener) -> None:
        if self._frozen_in_request is listener and not self._in_request:
            self._in_request, self._frozen_in_request = True, None
            self.pass_rounds(LONG_WAIT)
            self._in_request = False

    def pass_rounds(self, rounds: int) -> None:
        """Let time pass, in which everybody acts."""
        for _ in range(rounds):
            self.now += ROUND_SECONDS
            self.postgres.clock_ms += int(ROUND_SECONDS * 1000)
            self.postgres.pump(self.now)
            if self.postgres.is_stalled(self.now) or self.redis.refusal:
                self.stalled_at = self.now
            for listener in self.listeners:
                self._step(listener)
            for listener in self.listeners:
                self._step(listener)
            self.workers[0].step(self.now)

    def finish(self) -> None:
        """End the faults, commit what is left, and check that everything is repaired, and what follows delivered."""
        self.heal()
        while self.commits_left:
            self._commit()
        for past in range(SETTLE):
            self.pass_rounds(1)
            if past % 10 == 1:
                self.postgres.commit_event(CHANNEL, self.now)
            elif past > 1 and self._is_settled():
                return
        self.check_quiet()

    def check_quiet(self) -> None:
        """All listeners that run are aligned, too. While two primaries' listeners take turns, one of them is not."""
        super().check_quiet()
        running = [listener for listener in self.listeners if listener.starts_at <= self.now]
        not_aligned = [listener.name for listener in running if not self._is_ready(listener)]
        if not_aligned:
            raise Violation(f"listeners that are not aligned after a quiet period: {not_aligned}")

    @staticmethod
    def _is_ready(listener: Listener) -> bool:
        return listener.active is not None or listener.reserves.is_full

    def _is_settled(self) -> bool:
        try:
            self.check_quiet()
        except Violation:
            return False
        return True

    def state(self) -> int:
        """A hash of all that decides what can happen from here on."""
        return hash(freeze(self, SKIPPED))


# What does not decide what happens: the environment, which leads to the rest, counters for people, and settings.
# And of two listeners neither is ever a reserve.
SKIPPED: Sequence[str] = (
    *("world", "_env", "_registry", "rng"),
    *("reserves", "_reserves", "_exchange", "held_at"),
    *("stats", "transitions", "_round_trip", "_description", "gaps"),
    *("faults", "limits"),
)
