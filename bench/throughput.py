"""Events per second to one WebSocket client on each of four workers, notified as fast as PostgreSQL can."""

from collections.abc import Sequence

from bench.environment import Environment
from bench.report import Figure, Report
from bench.systems import MeasuredSystem, all_measured, direct, plain_listen, through_redis, without_feed

BASE = "plain-listen"
_ROUNDS, _SHORT_ROUNDS = 5, 2
_EVENTS, _SHORT_EVENTS = 40_000, 4_000
_TIMEOUT_SECONDS = 5.0  # without an event
_PAUSE_SECONDS = 0.002  # between two reads of the clients


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Compare the ways to the workers with a plain LISTEN in each worker."""
    with all_measured(environment, (through_redis, without_feed, direct, plain_listen)) as measured:
        compare("throughput", measured, report, short=short)


def compare(
    bench: str, measured: Sequence[MeasuredSystem], report: Report, *, short: bool, fewer_commits: int = 1
) -> None:
    """Compare systems with clients: in each round, one after the other is measured while the others are idle.

    Of commits with a single event there is one in `fewer_commits`, where each takes long.
    """
    for batch in (1, 100):
        events = (_SHORT_EVENTS if short else _EVENTS) // (fewer_commits if batch == 1 else 1)
        case = f"{batch} per transaction"
        for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
            for each in measured:
                report.run(bench, case, each.name, *_run(each, events, batch, report))
                for other in measured:
                    other.clients.discard()


def _run(measured: MeasuredSystem, events: int, batch: int, report: Report) -> list[Figure]:
    meter, first = measured.cpu_meter(), measured.emitter.last + 1
    with measured.emitter.flood(events, batch) as began:
        measured.clients.read_until(first + events - 1, _TIMEOUT_SECONDS, _PAUSE_SECONDS)
    spent = meter.read()
    arrivals = measured.clients.arrivals()
    got = sum(map(len, arrivals)) / len(arrivals)
    ended = max((each[-1].at for each in arrivals if each), default=began + _TIMEOUT_SECONDS)
    expected = list(range(first, first + events))
    if any([arrival.serial for arrival in each] != expected for each in arrivals):
        codes = f", some are closed: {measured.clients.closed}" if measured.clients.closed else ""
        report.note(f"{measured.name}, {batch} per transaction: NOT every client received every event in order:"
                    f" {got:,.0f} of {events:,} on average{codes}")  # fmt: skip
    return [
        Figure("events_per_s", "/s", got / (ended - began)),
        *(Figure(f"{part} CPU", "µs/event", seconds / events * 1e6) for part, seconds in spent.items()),
    ]
