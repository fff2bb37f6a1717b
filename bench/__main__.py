"""`python -m bench NAME|all [--short] [--json FILE] [--database URL --redis URL]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import fanout, latency, listener, peers, pods, storm, throughput, writers
from bench.environment import arena
from bench.machine import describe
from bench.report import Report

BENCHES = {
    "writers": writers,
    "latency": latency,
    "throughput": throughput,
    "fanout": fanout,
    "listener": listener,
    "storm": storm,
    "peers": peers,
    "pods": pods,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=[*BENCHES, "all"], metavar="NAME", help=f"{', '.join(BENCHES)}, or all")
    parser.add_argument("--short", action="store_true", help="seconds, to see that it runs; its figures say little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures")
    parser.add_argument("--database", metavar="URL", help="a PostgreSQL to measure on, whose user may create databases")
    parser.add_argument("--redis", metavar="URL", help="a Redis or Valkey to measure on")
    options = parser.parse_args(arguments)
    if bool(options.database) != bool(options.redis):
        parser.error("--database and --redis go together")
    names = list(BENCHES) if options.name == "all" else [options.name]
    with arena(options.database, options.redis) as servers:
        report = Report([*describe(), servers.versions])
        for name in names:
            print(f"bench: {name}", file=sys.stderr)  # noqa: T201 - the figures alone go to stdout
            BENCHES[name].measure(servers, report, short=options.short)
    sys.stdout.write(report.table({name: bench.BASE for name, bench in BENCHES.items()}) + "\n")
    if options.json:
        report.write(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
