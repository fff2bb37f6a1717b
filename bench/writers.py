"""Commits a second that notify, against how many hear: LISTENing directly, or through one listener.

PostgreSQL and those who write have one half of the machine's cores, all who hear the other half, as if on two machines.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psycopg
import redis

from app.appliance.embedded.postgres import program
from app.core.redis_keys import RedisNames
from bench.cpu import halves, pin
from bench.environment import Environment, Place
from bench.events import CHANNEL, MATCH, payload
from bench.report import Figure, Report
from notifymux.event import EventId
from tests.support.process import Process
from tests.support.programs import Listener

BASE = "direct, 1"
_COUNTS, _SHORT_COUNTS = (1, 4, 8, 32, 100), (1, 8)
_ROUNDS, _SHORT_ROUNDS = 3, 1
_SECONDS, _SHORT_SECONDS = 2, 1  # pgbench takes whole ones
_WRITERS = 8

_TABLE = f"""
CREATE TABLE score (id int PRIMARY KEY, home_score int NOT NULL DEFAULT 0);
INSERT INTO score SELECT generate_series(1, 1000);
CREATE FUNCTION score_notify() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_notify('{CHANNEL}', json_build_object(
        'match_id', {MATCH}, 'operation', TG_OP, 'data', row_to_json(NEW))::text);
    RETURN NULL;
END $$;
CREATE TRIGGER score_notify AFTER UPDATE ON score FOR EACH ROW EXECUTE FUNCTION score_notify();
"""
_SCRIPTS = {
    "one NOTIFY each": f"SELECT pg_notify('{CHANNEL}', '{payload(0)}');",
    "a row change each": "\\set id random(1, 1000)\nUPDATE score SET home_score = home_score + 1 WHERE id = :id;",
}
_COMMITS = re.compile(r"actually processed: ([0-9]+)")
_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


def measure(arena: Environment, report: Report, *, short: bool) -> None:
    """pgbench, with each number of sessions that LISTEN and with as many that hear the listener."""
    counts = _SHORT_COUNTS if short else _COUNTS
    with ExitStack() as stack:
        place = stack.enter_context(arena.place())
        with closing(psycopg.connect(place.database, autocommit=True)) as connection:
            connection.execute(_TABLE.encode())
        writing, hearing = halves()
        stack.enter_context(_pinned(arena, writing, hearing))
        for case, script in _SCRIPTS.items():
            for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
                for count in counts:
                    for way, hear in _WAYS.items():
                        with hear(place, count, hearing):
                            commits, rate = _pgbench(place, script, _SHORT_SECONDS if short else _SECONDS, writing)
                            figures = [Figure("commits_per_s", "/s", rate)]
                            if way == _LISTENER:
                                share = _forwarded(place) / commits * 100
                                figures.append(Figure("forwarded when the writers end", "%", share))
                        report.run("writers", case, f"{way}, {count}", *figures)


@contextmanager
def _pinned(arena: Environment, writing: set[int], hearing: set[int]) -> Iterator[None]:
    """The servers on their halves, where they are ours."""
    sides = {"postgres": writing, "redis": hearing}
    for part, pid in arena.parts.items():
        pin(pid, sides[part])
    try:
        yield
    finally:
        for pid in arena.parts.values():
            pin(pid, writing | hearing)


@contextmanager
def _direct(place: Place, count: int, cores: set[int]) -> Iterator[None]:
    with _ears(place, count, cores, "postgres", CHANNEL):
        yield


@contextmanager
def _through_the_listener(place: Place, count: int, cores: set[int]) -> Iterator[None]:
    with Listener(place.folder, place.settings) as listener:
        pin(listener.aligned().pid, cores)
        with _ears(place, count, cores, "redis", RedisNames(place.namespace).events):
            yield


_LISTENER = "listener"
_WAYS = {"direct": _direct, _LISTENER: _through_the_listener}


@contextmanager
def _ears(place: Place, count: int, cores: set[int], *where: str) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.programs.listen_clients", str(count), *where]
    with Process(command, place.folder, place.environment) as process:
        process.logged("hearing")
        pin(process.pid, cores)
        yield


def _pgbench(place: Place, script: str, seconds: int, cores: set[int]) -> tuple[int, float]:
    """Commits, and how many a second. They don't wait for the disk: that would hide what is measured."""
    path = place.folder / "pgbench.sql"
    path.write_text(script, encoding="utf-8")
    environment = place.environment | {"PGOPTIONS": "-c synchronous_commit=off"}
    options = f"-n -M prepared -c {_WRITERS} -T {seconds} -f".split()
    result = subprocess.run(
        [str(program("pgbench")), *options, str(path)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    commits, rate = _COMMITS.search(result.stdout), _RATE.search(result.stdout)
    if commits is None or rate is None:
        raise ValueError(f"pgbench said no rate: {result.stdout}")
    return int(commits[1]), float(rate[1])


def _forwarded(place: Place) -> int:
    """How many notifications the listener has forwarded since it began."""
    with closing(redis.Redis.from_url(place.redis_url)) as client:
        entries: Any = client.xrevrange(RedisNames(place.namespace).log, count=1)
    return EventId.parse(entries[0][0].decode()).sequence
