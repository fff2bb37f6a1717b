"""`python -m tests.chaos [--minutes 10] [--source notify wal] [--listeners 1 2 3] [--seed N] [--faults NAME ...]`.

Injects faults into real processes under load, and checks that no promise is broken. Runs once for each source and each
number of listeners, and prints a table with one column per run. The exit code is 1 if a promise was broken.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.environment import Environment
from tests.chaos.replicated_servers import ReplicatedServers
from tests.chaos.report import Report, table
from tests.chaos.source import SOURCES, WAL, Source
from tests.support.output import print_line


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of all runs together")
    parser.add_argument("--source", nargs="+", default=["notify"], choices=list(SOURCES), help="of the events")
    parser.add_argument("--listeners", type=int, nargs="+", default=[1, 2, 3], help="one run for each number")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="of faults and load")
    names = {name for source in SOURCES.values() for name in source.faults}
    parser.add_argument("--faults", nargs="+", default=[], choices=sorted(names), help="only these")
    parser.add_argument("--logs", type=Path, help="a folder for the programs' logs")
    options = parser.parse_args(arguments)
    runs = [(SOURCES[source], listeners) for source in options.source for listeners in options.listeners]
    seconds = options.minutes * 60 / len(runs)
    reports = []
    for source, listeners in runs:
        print_line(f"seed {options.seed}, SOURCE={source.name}, {listeners} listeners")
        report = run(source, listeners, options.seed, seconds, options.faults)
        reports.append(report)
        for violation in report.violations:
            print_line(f"BROKEN: {violation}")
        if options.logs:
            options.logs.mkdir(parents=True, exist_ok=True)
            (options.logs / f"{source.name}-{listeners}-{options.seed}.log").write_text(report.log)
    print_line(table(reports))
    return int(any(report.violations for report in reports))


def run(source: Source, listeners: int, seed: int, seconds: float, faults: Sequence[str]) -> Report:
    """Run once on new servers."""
    with (
        tempfile.TemporaryDirectory(prefix="notifymux-chaos-") as name,
        ReplicatedServers(_readable(Path(name)) / "servers", is_logical=source is WAL) as servers,
        Environment(servers, servers.folder, listeners, seed, source=source, verbose=True) as environment,
    ):
        return environment.run(seconds, faults)


def _readable(folder: Path) -> Path:
    folder.chmod(0o755)  # the servers run under another account
    return folder


if __name__ == "__main__":
    sys.exit(main())
