"""Writers: the clients of pgbench, each of which runs one script over and over."""

import os
import re
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from app.appliance.embedded.postgres import program
from bench.environment import Place

_COMMITS = re.compile(r"actually processed: ([0-9]+)")
_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


class Commits(NamedTuple):
    """What the writers of one run committed."""

    number: int
    per_second: float


def run_pgbench(
    place: Place, script: str, *, writers: int, seconds: int, settings: Mapping[str, str], cores: set[int]
) -> Commits:
    """Run a script with a number of writers; if no transaction ends in the time, again, with more of it.

    Args:
        place: with the database.
        script: of one transaction, in pgbench's language.
        writers: sessions of PostgreSQL.
        seconds: how long.
        settings: of PostgreSQL, in these sessions.
        cores: that pgbench runs on.

    Raises:
        ValueError: the output has no rate.
        CalledProcessError: pgbench failed.
    """
    path = place.folder / "pgbench.sql"
    path.write_text(script, encoding="utf-8")
    session = " ".join(f"-c {name}={value}" for name, value in settings.items())
    for more in (1, 5, 25):
        result = subprocess.run(
            [str(program("pgbench")), *f"-n -M prepared -c {writers} -T {more * seconds} -f".split(), str(path)],
            env=os.environ | place.environment | {"PGOPTIONS": session},
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        commits, rate = _COMMITS.search(result.stdout), _RATE.search(result.stdout)
        if commits and rate:
            return Commits(int(commits[1]), float(rate[1]))
    raise ValueError(f"no rate in the output of pgbench: {result.stdout}")
