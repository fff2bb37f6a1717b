"""`python -m bench NAME|all [--short] [--json FILE] [--database URL --redis URL]`: run a benchmark."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import (
    fanout,
    large_messages,
    latency,
    listener,
    memory,
    outages,
    peers,
    pods,
    storm,
    throughput,
    units,
    wal,
    writers,
)
from bench.environment import running_environment
from bench.machine import describe
from bench.report import Report

BENCHES = {
    "writers": writers,
    "latency": latency,
    "throughput": throughput,
    "wal": wal,
    "large": large_messages,
    "fanout": fanout,
    "listener": listener,
    "storm": storm,
    "peers": peers,
    "pods": pods,
    "memory": memory,
    "outages": outages,
    "units": units,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=[*BENCHES, "all"], metavar="NAME", help=f"{', '.join(BENCHES)}, or all")
    parser.add_argument(
        "--short", action="store_true", help="take seconds, to test that it runs; its figures are not meaningful"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--database", metavar="URL", help="a PostgreSQL server to use; the role must have CREATEDB")
    parser.add_argument("--redis", metavar="URL", help="a Redis or Valkey server to use")
    options = parser.parse_args(arguments)
    if bool(options.database) != bool(options.redis):
        parser.error("--database and --redis go together")
    names = list(BENCHES) if options.name == "all" else [options.name]
    with running_environment(options.database, options.redis) as environment:
        report = Report([*describe(), environment.server_versions])
        for name in names:
            print(f"bench: {name}", file=sys.stderr)  # noqa: T201 - stdout is for the figures
            BENCHES[name].measure(environment, report, short=options.short)
    sys.stdout.write(report.table({name: bench.BASE for name, bench in BENCHES.items()}) + "\n")
    if options.json:
        report.write(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
