"""As fast as PostgreSQL can emit, to one WebSocket client on each of four workers."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from bench.arena import Arena
from bench.report import Report
from bench.systems import Start, Watched, direct, plain_listen, through_redis

BASE = "plain-listen"
_ROUNDS, _SHORT_ROUNDS = 5, 2
_EVENTS, _SHORT_EVENTS = 40_000, 4_000
_SILENCE = 5.0  # seconds after which no more is expected
_PAUSE = 0.002  # seconds


def measure(arena: Arena, report: Report, *, short: bool) -> None:
    """Both modes, and a plain LISTEN in each worker."""
    compare("throughput", (through_redis, direct, plain_listen), arena, report, short=short)


def compare(bench: str, starts: Sequence[Start], arena: Arena, report: Report, *, short: bool) -> None:
    """Some systems, all of them up and idle but the one whose turn it is."""
    with ExitStack() as stack:
        systems = [stack.enter_context(start(arena)) for start in starts]
        watched = [stack.enter_context(Watched.on_each_worker(system, arena)) for system in systems]
        for batch in (1, 100):
            figures: dict[str, dict[str, list[float]]] = {each.name: {} for each in watched}
            for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
                for each in watched:
                    _run(each, _SHORT_EVENTS if short else _EVENTS, batch, figures[each.name], report)
                    for other in watched:
                        other.clients.pump()
            _add(bench, f"{batch} per transaction", figures, report)


def _run(watched: Watched, events: int, batch: int, figures: dict[str, list[float]], report: Report) -> None:
    meter, first = watched.meter(), watched.emitter.last + 1
    with watched.emitter.flood(events, batch) as began:
        watched.clients.read_until(first + events - 1, _SILENCE, _PAUSE)
    spent = meter.read()
    arrivals = watched.clients.arrivals()
    got = sum(map(len, arrivals))
    ended = max((each[-1].at for each in arrivals if each), default=began + _SILENCE)
    figures.setdefault("events_per_s", []).append(got / len(arrivals) / (ended - began))
    for part, seconds in spent.items():
        figures.setdefault(f"{part}_cpu", []).append(seconds / events * 1e6)
    expected = list(range(first, first + events))
    if any([arrival.serial for arrival in each] != expected for each in arrivals):
        missing = len(arrivals) * events - got
        report.note(f"{watched.name}, {batch} per transaction: NOT every event came, in order, to every client;"
                    f" {missing:,} of {len(arrivals) * events:,} messages are missing; closed with"
                    f" {watched.clients.closed or 'nothing'}")  # fmt: skip


def _add(bench: str, case: str, figures: Mapping[str, Mapping[str, list[float]]], report: Report) -> None:
    for metric in dict.fromkeys(metric for found in figures.values() for metric in found):
        for name, found in figures.items():
            report.add(bench, case, name, metric, "/s" if metric == "events_per_s" else "µs/event", found.get(metric, []))
