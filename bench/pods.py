"""What one, two and three listeners ask of Redis and of PostgreSQL, at rest and at a steady rate."""

import time
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import redis

from bench.environment import Environment, Place
from bench.events import paced
from bench.report import Figure, Report
from tests.support.programs import Listener

BASE = "1 listener"
_COUNTS = (1, 2, 3)
_ROUNDS, _SHORT_ROUNDS = 3, 1
_SECONDS, _SHORT_SECONDS = 4.0, 1.0
_RATE = 500  # events a second
_COUNTED_WITHIN = 2.5  # seconds: a session's commits are counted when it is asked something, so with its next canary


def measure(arena: Environment, report: Report, *, short: bool) -> None:
    """At rest and under load, with each number of listeners."""
    seconds = _SHORT_SECONDS if short else _SECONDS
    for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
        for count in _COUNTS:
            with arena.place() as place, ExitStack() as stack:
                for number in range(1, count + 1):
                    settings = place.settings | {"POD_NAME": f"pod-{number}"}
                    stack.enter_context(Listener(place.folder, settings)).aligned()
                config = f"{count} listener{'s' if count > 1 else ''}"
                report.run("pods", "at rest", config, *_used(place, seconds, 0))
                report.run("pods", f"{_RATE} events/s", config, *_used(place, seconds, _RATE))


def _used(place: Place, seconds: float, rate: int) -> list[Figure]:
    """Commands and commits a second, without the writer's own commits."""
    events = int(seconds * rate)
    before, began = _counts(place), time.monotonic()
    if events:
        with paced(place.database, 1, events, rate) as times:
            times()
        took = time.monotonic() - began
        time.sleep(_COUNTED_WITHIN)
    else:
        time.sleep(seconds + _COUNTED_WITHIN)
        took = time.monotonic() - began
    used = {name: (now - before[name]) / took for name, now in _counts(place).items()}
    used["PostgreSQL commits"] -= events / took
    return [Figure(name, "/s", value) for name, value in used.items()]


def _counts(place: Place) -> dict[str, float]:
    """So far; a script counts as one command, and what it calls as others."""
    with closing(redis.Redis.from_url(place.redis_url)) as client, psycopg.connect(place.database) as connection:
        commands: Any = client.info("commandstats")
        calls = {name: found["calls"] for name, found in commands.items()}
        row = connection.execute(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
        scripts = calls.get("cmdstat_evalsha", 0) + calls.get("cmdstat_eval", 0)
        return {
            "Redis commands": sum(calls.values()),
            "Redis scripts": scripts,
            "PostgreSQL commits": row[0] if row else 0,
        }
