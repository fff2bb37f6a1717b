"""Commits per second of writers that notify: by number of receivers, with LISTEN or through one listener.

PostgreSQL and these writers run on one half of the cores and the receivers on the other half, as if on two machines.
Their commits don't wait for the disk; those of `bench.durable_commits` do.
"""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import redis

from bench import durable_commits
from bench.cpu import halves, pin
from bench.environment import Environment, Place
from bench.events import CHANNEL, MATCH, payload
from bench.pgbench import run_pgbench
from bench.report import Figure, Report
from notifymux.event import EventId
from notifymux.redis_keys import RedisNames
from tests.support.process import Process
from tests.support.programs import Listener

BASE = "direct, 1"
_COUNTS, _SHORT_COUNTS = (1, 4, 8, 32, 100), (1, 8)
_ROUNDS, _SHORT_ROUNDS = 3, 1
_SECONDS, _SHORT_SECONDS = 2, 1  # integers, for pgbench
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


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Compare the numbers of receivers, and then what commits that wait for the disk announce."""
    writer_cores, receiver_cores = halves()
    with environment.place() as place:
        with closing(psycopg.connect(place.database, autocommit=True)) as connection:
            connection.execute(_TABLE.encode())
        with _pinned(environment, writer_cores, receiver_cores):
            _compare_receivers(place, report, writer_cores, receiver_cores, short=short)
        # On all cores, since writers without a message share flushes until the cores are busy, and others never do.
        with _direct(place, 1, receiver_cores):
            durable_commits.compare(environment, place, report, writer_cores | receiver_cores, short=short)


def _compare_receivers(
    place: Place, report: Report, writer_cores: set[int], receiver_cores: set[int], *, short: bool
) -> None:
    """Run pgbench with each number of sessions that LISTEN, and with as many subscribers behind the listener."""
    seconds = _SHORT_SECONDS if short else _SECONDS
    settings = {"synchronous_commit": "off"}
    for case, script in _SCRIPTS.items():
        for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
            for count in _SHORT_COUNTS if short else _COUNTS:
                for name, receivers in _RECEIVERS.items():
                    with receivers(place, count, receiver_cores):
                        commits = run_pgbench(
                            place, script, writers=_WRITERS, seconds=seconds, settings=settings, cores=writer_cores
                        )
                        figures = [Figure("commits_per_s", "/s", commits.per_second)]
                        if name == _LISTENER:
                            percent = _forwarded(place) / commits.number * 100
                            figures.append(Figure("forwarded when the writers end", "%", percent))
                    report.run("writers", case, f"{name}, {count}", *figures)


@contextmanager
def _pinned(environment: Environment, writer_cores: set[int], receiver_cores: set[int]) -> Iterator[None]:
    """Pin the embedded servers to their halves while the block runs."""
    cores = {"postgres": writer_cores, "redis": receiver_cores}
    for part, pid in environment.parts.items():
        pin(pid, cores[part])
    try:
        yield
    finally:
        for pid in environment.parts.values():
            pin(pid, writer_cores | receiver_cores)


@contextmanager
def _direct(place: Place, count: int, cores: set[int]) -> Iterator[None]:
    with _receivers(place, count, cores, "postgres", CHANNEL):
        yield


@contextmanager
def _through_the_listener(place: Place, count: int, cores: set[int]) -> Iterator[None]:
    with Listener(place.folder, place.settings) as listener:
        pin(listener.wait_until_aligned().pid, cores)
        with _receivers(place, count, cores, "redis", RedisNames(place.namespace).events):
            yield


_LISTENER = "listener"
_RECEIVERS = {"direct": _direct, _LISTENER: _through_the_listener}


@contextmanager
def _receivers(place: Place, count: int, cores: set[int], *where: str) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.programs.listen_clients", str(count), *where]
    with Process(command, place.folder, place.environment) as process:
        process.wait_for_log("receiving")
        pin(process.pid, cores)
        yield


def _forwarded(place: Place) -> int:
    """Return the number of notifications that the listener has forwarded."""
    with closing(redis.Redis.from_url(place.redis_url)) as client:
        entries: Any = client.xrevrange(RedisNames(place.namespace).log, count=1)
    return EventId.parse(entries[0][0].decode()).sequence
