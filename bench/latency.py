"""Latency from NOTIFY to a client on each of four workers at a steady rate, in total and of each hop; CPU time."""

from collections.abc import Sequence
from statistics import fmean, quantiles

from bench.environment import Environment, stream_events
from bench.redis_monitor import RedisMonitor
from bench.report import Figure, Report
from bench.systems import MeasuredSystem, all_measured, direct, plain_listen, through_redis, without_feed
from notifymux.redis_keys import RedisNames

BASE = "plain-listen"
_RATES = (200, 2000)  # events a second
_ROUNDS, _SHORT_ROUNDS = 11, 2  # of five, the p99 varies by a fifth from run to run
_SECONDS, _SHORT_SECONDS = 3.0, 0.5


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Compare the ways to the workers with a plain LISTEN in each worker; then measure each hop through Redis."""
    with all_measured(environment, (through_redis, without_feed, direct, plain_listen)) as measured:
        compare("latency", measured, report, short=short)
        rounds, seconds = _extent(short=short)
        others = [each for each in measured if each.name != "redis-without-feed"]
        [redis_mode] = [each for each in measured if each.name == "redis-without-feed"]
        for rate in _RATES:
            for _ in range(rounds):
                report.run("latency", f"{rate}/s, means", redis_mode.name, *_hops(redis_mode, rate, seconds, report))
                for other in others:
                    other.clients.discard()


def compare(bench: str, measured: Sequence[MeasuredSystem], report: Report, *, short: bool) -> None:
    """Compare systems with clients: in each round, one after the other is measured while the others are idle."""
    rounds, seconds = _extent(short=short)
    for rate in _RATES:
        for _ in range(rounds):
            for each in measured:
                report.run(bench, f"{rate}/s", each.name, *_percentiles(each, rate, seconds, report))
                for other in measured:
                    other.clients.discard()


def _extent(*, short: bool) -> tuple[int, float]:
    """How many rounds, and of how many seconds each."""
    return (_SHORT_ROUNDS, _SHORT_SECONDS) if short else (_ROUNDS, _SECONDS)


def _percentiles(measured: MeasuredSystem, rate: int, seconds: float, report: Report) -> list[Figure]:
    """Measure from just before NOTIFY until a client has read the event, for every client and event."""
    meter = measured.cpu_meter()
    sent = measured.notify_paced(rate, seconds)
    cpu = {part: spent / len(sent) * 1e6 for part, spent in meter.read().items()}
    arrivals = measured.clients.arrivals()
    if any([arrival.serial for arrival in each] != list(sent) for each in arrivals):
        report.note(f"{measured.name}, {rate}/s: NOT every client received every event in order")
    cuts = quantiles([(arrival.at - sent[arrival.serial]) * 1000 for each in arrivals for arrival in each], n=1000)
    return [
        Figure("p50", "ms", cuts[499]),
        Figure("p99", "ms", cuts[989]),
        Figure("p99.9", "ms", cuts[998]),
        *(Figure(f"{part} CPU", "µs/event", seconds) for part, seconds in cpu.items()),
    ]


def _hops(measured: MeasuredSystem, rate: int, seconds: float, report: Report) -> list[Figure]:
    """Measure each hop with the listener's timestamps and another subscriber of Redis.

    The figures are means, because the listener's timestamps are whole milliseconds.
    """
    place = measured.system.place
    with RedisMonitor(place.redis_url, RedisNames(place.namespace).events) as monitor:
        sent = measured.notify_paced(rate, seconds)
        published = monitor.arrivals()
    read = {serial: event.at or 0.0 for serial, event in stream_events(place).items()}
    received = {arrival.serial: arrival.at for arrival in measured.clients.arrivals()[0]}
    known = sent.keys() & published.keys() & read.keys() & received.keys()
    if len(known) < len(sent):
        report.note(f"hops at {rate}/s: {len(sent) - len(known)} of {len(sent)} events are missing at a hop")
    hops = {
        "NOTIFY to listener": (sent, read),
        "listener to subscriber": (read, published),
        "subscriber to client": (published, received),
        "NOTIFY to client": (sent, received),
    }
    return [
        Figure(name, "ms", fmean((to[serial] - since[serial]) * 1000 for serial in known))
        for name, (since, to) in hops.items()
    ]
