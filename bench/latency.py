"""Latency from NOTIFY to a client on each of four workers at a steady rate, in total and of each hop."""

from contextlib import ExitStack, closing
from statistics import fmean, quantiles
from typing import Any

import redis

from app.core.redis_keys import EVENT_FIELD, RedisNames
from bench.environment import Environment, Place
from bench.events import SERIAL, paced
from bench.redis_monitor import RedisMonitor
from bench.report import Figure, Report
from bench.systems import MeasuredSystem, direct, plain_listen, through_redis
from notifymux.event import decode

BASE = "plain-listen"
_RATES = (200, 2000)  # events a second
_ROUNDS, _SHORT_ROUNDS = 5, 2
_SECONDS, _SHORT_SECONDS = 3.0, 0.5
_TIMEOUT_SECONDS = 5.0  # without an event


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Compare both modes with a plain LISTEN in each worker; then measure each hop of the Redis mode."""
    rounds, seconds = (_SHORT_ROUNDS, _SHORT_SECONDS) if short else (_ROUNDS, _SECONDS)
    with ExitStack() as stack:
        systems = [stack.enter_context(start(environment)) for start in (through_redis, direct, plain_listen)]
        measured = [
            stack.enter_context(MeasuredSystem.with_client_on_each_worker(system, environment)) for system in systems
        ]
        for rate in _RATES:
            for _ in range(rounds):
                for each in measured:
                    report.run("latency", f"{rate}/s", each.name, *_percentiles(each, rate, seconds, report))
                    for other in measured:
                        other.clients.discard()
        redis_mode, *others = measured
        for rate in _RATES:
            for _ in range(rounds):
                report.run("latency", f"{rate}/s, means", redis_mode.name, *_hops(redis_mode, rate, seconds, report))
                for other in others:
                    other.clients.discard()


def _percentiles(measured: MeasuredSystem, rate: int, seconds: float, report: Report) -> list[Figure]:
    """Measure from just before NOTIFY until a client has read the event, for every client and event."""
    sent = _send(measured, rate, seconds)
    arrivals = measured.clients.arrivals()
    if any([arrival.serial for arrival in each] != list(sent) for each in arrivals):
        report.note(f"{measured.name}, {rate}/s: NOT every client received every event in order")
    cuts = quantiles([(arrival.at - sent[arrival.serial]) * 1000 for each in arrivals for arrival in each], n=1000)
    return [Figure("p50", "ms", cuts[499]), Figure("p99", "ms", cuts[989]), Figure("p99.9", "ms", cuts[998])]


def _send(measured: MeasuredSystem, rate: int, seconds: float) -> dict[int, float]:
    """Notify while the clients read; return the time at which each event was sent."""
    emitter, events = measured.emitter, int(rate * seconds)
    first, emitter.last = emitter.last + 1, emitter.last + events
    with paced(measured.system.place.database, first, events, rate) as times:
        measured.clients.read_until(emitter.last, _TIMEOUT_SECONDS)
        return dict(zip(range(first, emitter.last + 1), times(), strict=True))


def _hops(measured: MeasuredSystem, rate: int, seconds: float, report: Report) -> list[Figure]:
    """Measure each hop with the listener's timestamps and another subscriber of Redis.

    The figures are means, because the listener's timestamps are whole milliseconds.
    """
    place = measured.system.place
    with RedisMonitor(place.redis_url, RedisNames(place.namespace).events) as monitor:
        sent = _send(measured, rate, seconds)
        published = monitor.arrivals()
    read = _read_by_listener(place)
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


def _read_by_listener(place: Place) -> dict[int, float]:
    """Return the time at which the listener read each event of the stream, by serial."""
    with closing(redis.Redis.from_url(place.redis_url)) as client:
        entries: Any = client.xrange(RedisNames(place.namespace).log)
    texts = [fields[EVENT_FIELD.encode()] for _, fields in entries]
    return {int(found[1]): decode(text).at or 0.0 for text in texts if (found := SERIAL.search(text))}
