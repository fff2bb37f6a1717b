"""From NOTIFY to a client on each of four workers, at a steady rate; and where on the way the time goes."""

from contextlib import ExitStack, closing
from statistics import fmean, quantiles
from typing import Any

import redis

from app.core.redis_keys import EVENT_FIELD, RedisNames
from bench.environment import Environment, Place
from bench.events import SERIAL, paced
from bench.redis_monitor import RedisMonitor
from bench.report import Figure, Report
from bench.systems import Watched, direct, plain_listen, through_redis
from notifymux.event import decode

BASE = "plain-listen"
_RATES = (200, 2000)  # events a second
_ROUNDS, _SHORT_ROUNDS = 5, 2
_SECONDS, _SHORT_SECONDS = 3.0, 0.5
_SILENCE = 5.0  # seconds after which no more is expected


def measure(arena: Environment, report: Report, *, short: bool) -> None:
    """Both modes, and a plain LISTEN in each worker; then through Redis once more, watched on the way."""
    rounds, seconds = (_SHORT_ROUNDS, _SHORT_SECONDS) if short else (_ROUNDS, _SECONDS)
    with ExitStack() as stack:
        systems = [stack.enter_context(start(arena)) for start in (through_redis, direct, plain_listen)]
        watched = [stack.enter_context(Watched.on_each_worker(system, arena)) for system in systems]
        for rate in _RATES:
            for _ in range(rounds):
                for each in watched:
                    report.run("latency", f"{rate}/s", each.name, *_percentiles(each, rate, seconds, report))
                    for other in watched:
                        other.clients.pump()
        through, *others = watched
        for rate in _RATES:
            for _ in range(rounds):
                report.run("latency", f"{rate}/s, means", through.name, *_hops(through, rate, seconds, report))
                for other in others:
                    other.clients.pump()


def _percentiles(watched: Watched, rate: int, seconds: float, report: Report) -> list[Figure]:
    """Of the milliseconds from just before a NOTIFY was sent to a client's read, of every client and event."""
    sent = _send(watched, rate, seconds)
    arrivals = watched.clients.arrivals()
    if any([arrival.serial for arrival in each] != list(sent) for each in arrivals):
        report.note(f"{watched.name}, {rate}/s: NOT every event came to every client, in order")
    cuts = quantiles([(arrival.at - sent[arrival.serial]) * 1000 for each in arrivals for arrival in each], n=1000)
    return [Figure("p50", "ms", cuts[499]), Figure("p99", "ms", cuts[989]), Figure("p99.9", "ms", cuts[998])]


def _send(watched: Watched, rate: int, seconds: float) -> dict[int, float]:
    """Notifies while the clients read; when each event was sent."""
    emitter, events = watched.emitter, int(rate * seconds)
    first, emitter.last = emitter.last + 1, emitter.last + events
    with paced(watched.system.place.database, first, events, rate) as times:
        watched.clients.read_until(emitter.last, _SILENCE)
        return dict(zip(range(first, emitter.last + 1), times(), strict=True))


def _hops(watched: Watched, rate: int, seconds: float, report: Report) -> list[Figure]:
    """Each part of the way, from what the listener wrote and a subscriber of our own saw.

    Means, for the listener writes whole milliseconds.
    """
    place = watched.system.place
    with RedisMonitor(place.redis_url, RedisNames(place.namespace).events) as tap:
        sent = _send(watched, rate, seconds)
        published = tap.arrivals()
    read = _read_by_listener(place)
    got = {arrival.serial: arrival.at for arrival in watched.clients.arrivals()[0]}
    known = sent.keys() & published.keys() & read.keys() & got.keys()
    if len(known) < len(sent):
        report.note(f"hops at {rate}/s: {len(sent) - len(known)} of {len(sent)} events were not seen everywhere")
    steps = {
        "NOTIFY to listener": (sent, read),
        "listener to subscriber": (read, published),
        "subscriber to client": (published, got),
        "NOTIFY to client": (sent, got),
    }
    return [
        Figure(name, "ms", fmean((to[serial] - since[serial]) * 1000 for serial in known))
        for name, (since, to) in steps.items()
    ]


def _read_by_listener(place: Place) -> dict[int, float]:
    """When the listener read each event that is in the stream."""
    with closing(redis.Redis.from_url(place.redis_url)) as client:
        entries: Any = client.xrange(RedisNames(place.namespace).log)
    texts = [fields[EVENT_FIELD.encode()] for _, fields in entries]
    return {int(found[1]): decode(text).at or 0.0 for text in texts if (found := SERIAL.search(text))}
