"""`python -m tests.isolation [--seconds 5] [--rounds 3]`: how other load on a worker delays the events of a match.

It measures from NOTIFY to the client, on a single worker, in turn with no other load, with a callback that awaits one
second per event, with a client that never reads, and with another match that has 10,000 events per second.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import redis

from notifymux.redis_keys import RedisNames
from tests.isolation.load import CALLBACK, LOADS
from tests.support.process import ROOT, environment
from tests.support.programs import App, Listener
from tests.support.servers import temporary_servers

NO_LOAD = "nothing else"


@dataclass
class Figures:
    """The measurements with one kind of load."""

    latencies: list[float] = field(default_factory=list)  # ms
    rates: list[float] = field(default_factory=list)  # events per second of all matches, by round
    complete: bool = True  # every event was received once and in order


def measure(
    folder: Path, database: str, settings: Mapping[str, str], seconds: float, rounds: int
) -> dict[str, Figures]:
    """Measure with every kind of load in turn, for some rounds, each time on a new worker."""
    results = {load: Figures() for load in [NO_LOAD, *LOADS]}
    stream = RedisNames(settings.get("REDIS_NAMESPACE", "pg_notify")).log
    with (
        Listener(folder, settings) as listener,
        closing(redis.Redis.from_url(settings["REDIS_URL"])) as client,
    ):
        listener.wait_until_aligned()
        for load in list(results) * rounds:
            program = "tests.isolation.program:app" if load == CALLBACK else "app.main:app"
            with (
                App(folder, settings, program=program) as app,
                _running_load(load, app.wait_until_ready().port, database),
            ):
                before, began = _sequence(client, stream), time.monotonic()
                measured = _run_probe(app.port, database, seconds)
                results[load].rates.append((_sequence(client, stream) - before) / (time.monotonic() - began))
                results[load].latencies.extend(measured["latencies"])
                results[load].complete &= measured["complete"]
            assert "Traceback" not in app.log, app.log
    return results


def table(results: Mapping[str, Figures]) -> str:
    """Format the figures, with one row per kind of load."""
    base = _p99(results[NO_LOAD].latencies)
    lines = [f"{'meanwhile':16}{'events/s':>10}{'p50, ms':>10}{'p99, ms':>10}{'p99 ratio':>11}  complete"]
    for load, figures in results.items():
        p50, p99, rate = quantiles(figures.latencies, n=2)[0], _p99(figures.latencies), fmean(figures.rates)
        complete = "yes" if figures.complete else "NO"
        lines.append(f"{load:16}{rate:10,.0f}{p50:10.2f}{p99:10.2f}{p99 / base:11.2f}  {complete}")
    return "\n".join(lines)


def _p99(latencies: Sequence[float]) -> float:
    return quantiles(latencies, n=100)[98]


def _sequence(client: redis.Redis, stream: str) -> int:
    """Return the sequence number of the stream's last event."""
    entries: Any = client.xrevrange(stream, count=1)
    return int(entries[0][0].partition(b"-")[2])


def _run_probe(port: int, database: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.isolation.probe", str(port), database, str(seconds)]
    output = subprocess.run(
        command, cwd=ROOT, env=environment({}), stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    measured: dict[str, Any] = json.loads(output)
    return measured


@contextmanager
def _running_load(load: str, port: int, database: str) -> Iterator[None]:
    if load == NO_LOAD:
        yield
        return
    command = [sys.executable, "-m", "tests.isolation.load", load, str(port), database]
    with subprocess.Popen(command, cwd=ROOT, env=environment({})) as process:
        try:
            time.sleep(1)  # until the load is steady
            yield
        finally:
            process.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.isolation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with temporary_servers("isolation") as servers:
        database = servers.embedded.database_url
        results = measure(servers.folder, database, servers.settings, options.seconds, options.rounds)
    sys.stdout.write(table(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
