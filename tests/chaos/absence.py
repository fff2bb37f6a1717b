"""`python -m tests.chaos.absence [--seconds 60] [--seed N]`: with SOURCE=wal, the only listener is away for a while.

It is killed under load, and stays away; meanwhile PostgreSQL crashes and restarts. The exit code is 1 if an event was
lost, repeated or out of order, or if there was a gap.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.environment import Environment
from tests.chaos.faults import stay_away
from tests.chaos.report import Report, table
from tests.chaos.source import WAL
from tests.support.output import print_line
from tests.support.servers import Servers, temporary_servers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.absence", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of the absence")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="of the load")
    options = parser.parse_args(arguments)
    with temporary_servers("absence", {"wal_level": "logical"}) as servers, tempfile.TemporaryDirectory() as folder:
        report = absence(servers, Path(folder), options.seed, options.seconds)
    print_line(table([report]))
    for violation in report.violations:
        print_line(f"BROKEN: {violation}")
    return int(bool(report.violations))


def absence(servers: Servers, folder: Path, seed: int, seconds: float) -> Report:
    """Let the only listener be away for some seconds, and return the report."""
    with Environment(servers, folder, 1, seed, source=WAL, verbose=True) as environment:
        environment.run_load(1)
        environment.inject("absent, crash", lambda target: stay_away(target, seconds))
        environment.run_load(1)
        return environment.finish()


if __name__ == "__main__":
    sys.exit(main())
