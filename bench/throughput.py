"""As fast as PostgreSQL can emit, to one WebSocket client on each of four workers."""

from collections.abc import Sequence
from contextlib import ExitStack

from bench.environment import Environment
from bench.report import Figure, Report
from bench.systems import System, Watched, direct, plain_listen, through_redis

BASE = "plain-listen"
_ROUNDS, _SHORT_ROUNDS = 5, 2
_EVENTS, _SHORT_EVENTS = 40_000, 4_000
_SILENCE = 5.0  # seconds after which no more is expected
_PAUSE = 0.002  # seconds


def measure(arena: Environment, report: Report, *, short: bool) -> None:
    """Both modes, and a plain LISTEN in each worker."""
    with ExitStack() as stack:
        systems = [stack.enter_context(start(arena)) for start in (through_redis, direct, plain_listen)]
        compare("throughput", systems, arena, report, short=short)


def compare(bench: str, systems: Sequence[System], arena: Environment, report: Report, *, short: bool) -> None:
    """Some systems, all of them up and idle but the one whose turn it is."""
    events = _SHORT_EVENTS if short else _EVENTS
    with ExitStack() as stack:
        watched = [stack.enter_context(Watched.on_each_worker(system, arena)) for system in systems]
        for batch in (1, 100):
            case = f"{batch} per transaction"
            for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
                for each in watched:
                    report.run(bench, case, each.name, *_run(each, events, batch, report))
                    for other in watched:
                        other.clients.pump()


def _run(watched: Watched, events: int, batch: int, report: Report) -> list[Figure]:
    meter, first = watched.meter(), watched.emitter.last + 1
    with watched.emitter.flood(events, batch) as began:
        watched.clients.read_until(first + events - 1, _SILENCE, _PAUSE)
    spent = meter.read()
    arrivals = watched.clients.arrivals()
    got = sum(map(len, arrivals)) / len(arrivals)
    ended = max((each[-1].at for each in arrivals if each), default=began + _SILENCE)
    expected = list(range(first, first + events))
    if any([arrival.serial for arrival in each] != expected for each in arrivals):
        codes = f", some are closed: {watched.clients.closed}" if watched.clients.closed else ""
        report.note(f"{watched.name}, {batch} per transaction: NOT every event came to every client, in order:"
                    f" {got:,.0f} of {events:,} on average{codes}")  # fmt: skip
    return [
        Figure("events_per_s", "/s", got / (ended - began)),
        *(Figure(f"{part} CPU", "µs/event", seconds / events * 1e6) for part, seconds in spent.items()),
    ]
