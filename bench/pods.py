"""What listeners cost Redis and PostgreSQL, by their number: at rest, at a steady rate, and for writers.

Three of them hold a session of PostgreSQL; the others are reserves.
"""

import os
import time
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import redis

from bench.environment import Environment, Place
from bench.events import CHANNEL, paced, payload
from bench.pgbench import run_pgbench
from bench.report import Figure, Report
from listener.reserves import STEADY_SECONDS
from tests.support.programs import Listener
from tests.support.waiting import wait_until

BASE = "1 listener"
_COUNTS, _SHORT_COUNTS = (1, 2, 3, 10, 50), (1, 3, 6)
_MOST = 3  # hold a session
_ROUNDS, _SHORT_ROUNDS = 3, 1
_SECONDS, _SHORT_SECONDS = 4.0, 1.0
_REST_SECONDS, _SHORT_REST_SECONDS = 10.0, 2.0  # a reserve looks every 2.5 s
_RATE = 500  # events per second
_WRITERS, _PGBENCH_SECONDS = 8, 2
# A session reports its commits after its next statement, which is at the latest its next canary.
_REPORT_SECONDS = 2.5
_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Measure at rest and under load, with each number of listeners."""
    seconds, rest_seconds = (_SHORT_SECONDS, _SHORT_REST_SECONDS) if short else (_SECONDS, _REST_SECONDS)
    for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
        for count in _SHORT_COUNTS if short else _COUNTS:
            with environment.place() as place, ExitStack() as stack:
                _start(place, stack, count)
                config = f"{count} listener{'s' if count > 1 else ''}"
                rest = _measure(place, rest_seconds, 0)
                del rest["Redis scripts"]  # one every two seconds
                sessions = Figure("sessions that LISTEN", "sessions", _sessions(place))
                report.run("pods", "at rest", config, *_per_second(rest), sessions)
                report.run("pods", f"{_RATE} events/s", config, *_per_second(_measure(place, seconds, _RATE)))
                report.run("pods", f"{_WRITERS} writers", config, _commits(place))


def _start(place: Place, stack: ExitStack, count: int) -> None:
    """Start listeners, and wait until no more of them hold a session than may."""
    listeners = [
        stack.enter_context(Listener(place.folder, place.settings | {"POD_NAME": f"pod-{number}"}))
        for number in range(1, count + 1)
    ]
    expected, steady = min(count, _MOST), STEADY_SECONDS + 2 if count > _MOST else 0.0
    began = time.monotonic()

    def are_settled() -> bool:
        nonlocal began
        if _sessions(place) != expected or not all("settings" in each.log for each in listeners):
            began = time.monotonic()
        return time.monotonic() - began > steady

    wait_until(are_settled, 120, lambda: f"{_sessions(place)} sessions of {count} listeners LISTEN")


def _sessions(place: Place) -> int:
    with psycopg.connect(place.database) as connection:
        row = connection.execute(_SESSIONS.encode()).fetchone()
    return int(row[0]) if row else 0


def _commits(place: Place) -> Figure:
    """Return the commits per second of writers whose transactions notify, and don't wait for the disk."""
    script = f"SELECT pg_notify('{CHANNEL}', '{payload(0)}');"
    settings, cores = {"synchronous_commit": "off"}, os.sched_getaffinity(0)
    commits = run_pgbench(place, script, writers=_WRITERS, seconds=_PGBENCH_SECONDS, settings=settings, cores=cores)
    return Figure("commits_per_s", "/s", commits.per_second)


def _measure(place: Place, seconds: float, rate: int) -> dict[str, float]:
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
    return per_second


def _per_second(values: dict[str, float]) -> list[Figure]:
    return [Figure(name, "/s", value) for name, value in values.items()]


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
