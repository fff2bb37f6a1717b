"""Unit costs, from which `bench.capacity` computes what a deployment takes: of an event, a listener and a worker.

One pod's listener alone, the same with four workers that it feeds, and with four workers of another pod are measured at
rest and under load. A unit's cost is the difference. No client is connected: `fanout` measures what a frame costs.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple, Self

import redis

from bench.cpu import CpuMeter
from bench.environment import Environment, Place
from bench.events import paced
from bench.report import Figure, Report
from tests.support.programs import App, Listener

BASE = "a listener"
_WORKERS = 4
_RATE = 500  # events a second
_ROUNDS, _SHORT_ROUNDS = 3, 1
_SECONDS, _SHORT_SECONDS = 5.0, 2.0
_SETTLE_SECONDS, _SHORT_SETTLE_SECONDS = 3.0, 1.0


class Load(NamedTuple):
    """What a system takes a second."""

    commands: float  # of Redis; a script is one, and each command that it calls is another
    received: float  # by Redis, bytes
    sent: float  # by Redis, bytes
    redis: float  # CPU seconds, as those below; 0 for a server that was given
    listener: float
    workers: float

    def __sub__(self, other: Self) -> "Load":
        return Load(*(mine - others for mine, others in zip(self, other, strict=True)))


class Loads(NamedTuple):
    """What it takes at rest, and what each event adds."""

    at_rest: Load
    event: Load


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Measure all systems in turn, and report the unit costs of each round."""
    for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
        alone, fed, remote = [_loads(environment, config, short) for config in (None, "fed", "remote")]
        _report_listener(report, alone)
        for name, one in (("a worker that is fed", fed), ("a worker through Redis", remote)):
            _report_worker(report, name, Loads(one.at_rest - alone.at_rest, one.event - alone.event))


def _report_listener(report: Report, loads: Loads) -> None:
    rest, event = loads
    report.run("units", "at rest", BASE, Figure("Redis commands", "/s", rest.commands))
    report.run(
        "units",
        f"{_RATE} events/s",
        BASE,
        Figure("Redis commands", "/event", event.commands),
        Figure("bytes to Redis", "/event", event.received),
        Figure("its own CPU", "µs/event", event.listener * 1e6),
        *_redis_cpu(event.redis),
    )


def _report_worker(report: Report, config: str, loads: Loads) -> None:
    rest, event = loads
    report.run("units", "at rest", config, Figure("Redis commands", "/s", rest.commands / _WORKERS))
    figures = [Figure("its own CPU", "µs/event", event.workers / _WORKERS * 1e6)]
    if config.endswith("Redis"):
        figures += [Figure("bytes from Redis", "/event", event.sent / _WORKERS), *_redis_cpu(event.redis / _WORKERS)]
    report.run("units", f"{_RATE} events/s", config, *figures)


def _redis_cpu(seconds: float) -> list[Figure]:
    return [Figure("Redis CPU", "µs/event", seconds * 1e6)] if seconds else []


def _loads(environment: Environment, workers: str | None, short: bool) -> Loads:
    settle, seconds = (_SHORT_SETTLE_SECONDS, _SHORT_SECONDS) if short else (_SETTLE_SECONDS, _SECONDS)
    with environment.place() as place, _system(place, workers) as parts:
        meter = {**parts, **{name: pid for name, pid in environment.parts.items() if name == "redis"}}
        time.sleep(settle)
        at_rest = _load(place, meter, seconds, 0)
        busy = _load(place, meter, seconds, _RATE)
        return Loads(at_rest, Load(*(each / _RATE for each in busy - at_rest)))


@contextmanager
def _system(place: Place, workers: str | None) -> Iterator[dict[str, int]]:
    settings = place.settings | {"USE_REDIS_NOTIFIER": "true"}
    with ExitStack() as stack:
        listener = stack.enter_context(Listener(place.folder, settings)).wait_until_aligned()
        parts = {"listener": listener.pid}
        if workers:
            folder = place.folder if workers == "fed" else place.folder / workers
            folder.mkdir(exist_ok=True)
            app = stack.enter_context(App(folder, settings, _WORKERS)).wait_until_ready()
            parts["workers"] = app.pid
        yield parts


def _load(place: Place, parts: dict[str, int], seconds: float, rate: int) -> Load:
    with closing(redis.Redis.from_url(place.redis_url)) as client, ExitStack() as stack:
        wait = stack.enter_context(paced(place.database, 1, int(seconds * rate), rate)) if rate else None
        meter, before, began = CpuMeter(parts), _counts(client), time.monotonic()
        if wait is None:
            time.sleep(seconds)
        else:
            wait()
        elapsed = time.monotonic() - began
        commands, received, sent = [(now - was) / elapsed for now, was in zip(_counts(client), before, strict=True)]
        cpu = {name: spent / elapsed for name, spent in meter.read().items()}
        return Load(commands, received, sent, cpu.get("redis", 0.0), cpu["listener"], cpu.get("workers", 0.0))


def _counts(client: redis.Redis) -> tuple[int, int, int]:
    found: Any = client.info("stats")
    return found["total_commands_processed"], found["total_net_input_bytes"], found["total_net_output_bytes"]
