"""`python -m tests.isolation [--seconds 5] [--rounds 3]`: what others do to a match, from NOTIFY to client.

Four things in turn: nothing; a callback that awaits a second; a client that never reads; a match with 10,000 events a
second. The events measured are those of other matches, on the same single worker.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import redis

from app.core.redis_keys import RedisNames
from tests.isolation.load import CALLBACK, KINDS
from tests.support.process import ROOT, environment
from tests.support.programs import App, Listener
from tests.support.servers import Servers, database_settings

QUIET = "nothing else"


@dataclass
class Figures:
    """Of one kind of noise; times in ms."""

    times: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # events a second, of all matches
    complete: bool = True  # every event came, once, and in order


def measure(
    folder: Path, database: str, settings: Mapping[str, str], seconds: float, rounds: int
) -> dict[str, Figures]:
    """Every kind of noise, `rounds` times in turn, each time on a fresh worker."""
    results = {kind: Figures() for kind in [QUIET, *KINDS]}
    stream = RedisNames(settings.get("REDIS_NAMESPACE", "pg_notify")).log
    with (
        Listener(folder, settings) as listener,
        closing(redis.Redis.from_url(settings["REDIS_URL"])) as client,
    ):
        listener.aligned()
        for kind in list(results) * rounds:
            factory = "tests.isolation.program:app" if kind == CALLBACK else "app.main:app"
            with App(folder, settings, factory=factory) as app, _noise(kind, app.ready().port, database):
                before, began = _sequence(client, stream), time.monotonic()
                answer = json.loads(_output("probe", str(app.port), database, str(seconds)))
                results[kind].rates.append((_sequence(client, stream) - before) / (time.monotonic() - began))
                results[kind].times.extend(answer["times"])
                results[kind].complete &= answer["complete"]
            assert "Traceback" not in app.log, app.log
    return results


def report(results: Mapping[str, Figures]) -> str:
    """The figures, side by side."""
    base = _p99(results[QUIET].times)
    lines = [f"{'meanwhile':16}{'events/s':>10}{'p50, ms':>10}{'p99, ms':>10}{'p99 ratio':>11}  complete"]
    for kind, found in results.items():
        p50, p99, rate = quantiles(found.times, n=2)[0], _p99(found.times), fmean(found.rates)
        complete = "yes" if found.complete else "NO"
        lines.append(f"{kind:16}{rate:10,.0f}{p50:10.2f}{p99:10.2f}{p99 / base:11.2f}  {complete}")
    return "\n".join(lines)


def _p99(times: Sequence[float]) -> float:
    return quantiles(times, n=100)[98]


def _sequence(client: redis.Redis, stream: str) -> int:
    """How many events there were."""
    entries: Any = client.xrevrange(stream, count=1)
    return int(entries[0][0].partition(b"-")[2])


def _command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"tests.isolation.{module}", *arguments]


def _output(module: str, *arguments: str) -> str:
    command = _command(module, *arguments)
    return subprocess.run(command, cwd=ROOT, env=environment({}), stdout=subprocess.PIPE, text=True, check=True).stdout


@contextmanager
def _noise(kind: str, port: int, database: str) -> Iterator[None]:
    if kind == QUIET:
        yield
        return
    command = _command("load", kind, str(port), database)
    with subprocess.Popen(command, cwd=ROOT, env=environment({})) as process:
        try:
            time.sleep(1)  # it starts, and what it starts with is over
            yield
        finally:
            process.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.isolation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="notifymux-isolation-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the servers run under an account of their own
        servers = Servers(folder / "servers")
        try:
            servers.start_postgres()
            servers.start_redis()
            database = servers.embedded.database_url
            own = {"REDIS_URL": servers.embedded.redis_url, "USE_REDIS_NOTIFIER": "true"}
            results = measure(folder, database, database_settings(database) | own, options.seconds, options.rounds)
        finally:
            servers.end()
    sys.stdout.write(report(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
