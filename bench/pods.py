"""Commands to Redis and commits in PostgreSQL of one, two and three listeners, at rest and at a steady rate."""

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
_RATE = 500  # events per second
# A session reports its commits after its next statement, which is at the latest its next canary.
_REPORT_SECONDS = 2.5


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Measure at rest and under load, with each number of listeners."""
    seconds = _SHORT_SECONDS if short else _SECONDS
    for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
        for count in _COUNTS:
            with environment.place() as place, ExitStack() as stack:
                for number in range(1, count + 1):
                    settings = place.settings | {"POD_NAME": f"pod-{number}"}
                    stack.enter_context(Listener(place.folder, settings)).wait_until_aligned()
                config = f"{count} listener{'s' if count > 1 else ''}"
                report.run("pods", "at rest", config, *_measure(place, seconds, 0))
                report.run("pods", f"{_RATE} events/s", config, *_measure(place, seconds, _RATE))


def _measure(place: Place, seconds: float, rate: int) -> list[Figure]:
    """Return the commands and commits per second, without the commits of the writer."""
    events = int(seconds * rate)
    before, began = _counts(place), time.monotonic()
    if events:
        with paced(place.database, 1, events, rate) as times:
            times()
        elapsed = time.monotonic() - began
        time.sleep(_REPORT_SECONDS)
    else:
        time.sleep(seconds + _REPORT_SECONDS)
        elapsed = time.monotonic() - began
    per_second = {name: (now - before[name]) / elapsed for name, now in _counts(place).items()}
    per_second["PostgreSQL commits"] -= events / elapsed
    return [Figure(name, "/s", value) for name, value in per_second.items()]


def _counts(place: Place) -> dict[str, float]:
    """Return the counts so far. A script is one command, and each command that it calls is another."""
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
