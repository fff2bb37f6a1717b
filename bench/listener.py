"""The listener's CPU time per event, compared with a loop that reads and pipelines PUBLISH without any guarantee."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from bench.cpu import cpu_seconds, family
from bench.environment import Environment, Place
from bench.events import Emitter, paced
from bench.redis_monitor import RedisMonitor
from bench.report import Figure, Report
from notifymux.redis_keys import RedisNames
from tests.support.process import Process
from tests.support.programs import Listener
from tests.support.waiting import wait_until

BASE = "drain and PUBLISH"
_ROUNDS, _SHORT_ROUNDS = 5, 2
_EVENTS, _SHORT_EVENTS = 50_000, 5_000  # fewer than the listener buffers
_EVENTS_PER_SECOND, _SECONDS, _SHORT_SECONDS = 2000, 3.0, 0.5


class Forwarding(NamedTuple):
    """A program that forwards NOTIFY to Redis."""

    name: str
    pid: int
    place: Place
    emitter: Emitter

    @property
    def channel(self) -> str:
        """The channel on which it publishes."""
        return RedisNames(self.place.namespace).events


def measure(arena: Environment, report: Report, *, short: bool) -> None:
    """Measure as fast as PostgreSQL can emit, and at a steady rate."""
    events, seconds = (_SHORT_EVENTS, _SHORT_SECONDS) if short else (_EVENTS, _SECONDS)
    cases: dict[str, Callable[[Forwarding], float]] = {
        "100 per transaction": lambda each: _flood(each, events, 100),
        "1 per transaction": lambda each: _flood(each, events, 1),
        f"{_EVENTS_PER_SECOND}/s": lambda each: _steady(each, int(_EVENTS_PER_SECOND * seconds)),
    }
    with ExitStack() as stack:
        every = [stack.enter_context(start(arena)) for start in (_listener, _loop)]
        for case, run in cases.items():
            for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
                for each in every:
                    report.run("listener", case, each.name, Figure("listener CPU", "µs/event", run(each)))


def _flood(each: Forwarding, events: int, batch: int) -> float:
    first = each.emitter.last + 1
    with RedisMonitor(each.place.redis_url, each.channel) as tap:
        before = cpu_seconds(family(each.pid))
        with each.emitter.flood(events, batch):
            pass
        wait_until(lambda: tap.has(first + events - 1), 60, "everything is forwarded")
        spent = cpu_seconds(family(each.pid)) - before
        assert list(tap.arrivals()) == list(range(first, first + events)), f"{each.name}: events are missing"
    return spent / events * 1e6


def _steady(each: Forwarding, events: int) -> float:
    first, each.emitter.last = each.emitter.last + 1, each.emitter.last + events
    with RedisMonitor(each.place.redis_url, each.channel) as tap:
        before = cpu_seconds(family(each.pid))
        with paced(each.place.database, first, events, _EVENTS_PER_SECOND) as times:
            times()
        wait_until(lambda: tap.has(each.emitter.last), 20, "everything is forwarded")
        return (cpu_seconds(family(each.pid)) - before) / events * 1e6


@contextmanager
def _listener(arena: Environment) -> Iterator[Forwarding]:
    with arena.place() as place, Listener(place.folder, place.settings) as process:
        process.wait_until_aligned()
        with Emitter(place.database) as emitter:
            yield Forwarding("listener", process.pid, place, emitter)


@contextmanager
def _loop(arena: Environment) -> Iterator[Forwarding]:
    with arena.place() as place:
        command = [sys.executable, "-m", "bench.programs.drain", RedisNames(place.namespace).events]
        with Process(command, place.folder, place.environment) as process, Emitter(place.database) as emitter:
            process.wait_for_log("listening")
            yield Forwarding(BASE, process.pid, place, emitter)
