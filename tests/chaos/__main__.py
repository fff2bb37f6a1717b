"""`python -m tests.chaos --minutes 10 [--listeners 1 2 3] [--seed N] [--logs FOLDER]`."""

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.environment import Environment, Report, say
from tests.chaos.faults import FAULTS
from tests.chaos.servers import ReplicatedServers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of all runs together")
    parser.add_argument("--listeners", type=int, nargs="+", default=[1, 2, 3], help="one run for each number")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="of faults and load")
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), choices=list(FAULTS), help="only these")
    parser.add_argument("--logs", type=Path, help="a folder for the programs' logs")
    options = parser.parse_args(arguments)
    seconds = options.minutes * 60 / len(options.listeners)
    reports = []
    with tempfile.TemporaryDirectory(prefix="notifymux-chaos-") as folder:
        Path(folder).chmod(0o755)  # the servers run under an account of their own
        for listeners in options.listeners:
            say(f"seed {options.seed}, {listeners} listeners")
            report = one(Path(folder) / str(listeners), listeners, options.seed, seconds, options.faults)
            reports.append(report)
            for promise in report.broken:
                say(f"BROKEN: {promise}")
            if options.logs:
                options.logs.mkdir(parents=True, exist_ok=True)
                (options.logs / f"{listeners}-{options.seed}.log").write_text(report.log)
    say(table(reports))
    return int(any(report.broken for report in reports))


def one(folder: Path, listeners: int, seed: int, seconds: float, faults: Sequence[str]) -> Report:
    """One run, on servers of its own."""
    folder.mkdir()
    servers = ReplicatedServers(folder / "servers")
    try:
        servers.start_postgres()
        servers.start_redis()
        with Environment(servers, folder, listeners, seed, verbose=True) as arena:
            try:
                arena.run(seconds, faults)
                return arena.finish()
            except AssertionError:
                sys.stderr.write("\n".join(pod.log for pod in arena.pods) + f"\n--- app\n{arena.app.log}\n")
                raise
    finally:
        servers.end()


def table(reports: Sequence[Report]) -> str:
    """The figures, one column for each run."""
    rows: list[tuple[str, ...]] = [
        ("listeners", *(str(report.listeners) for report in reports)),
        ("seconds", *(f"{report.seconds:.0f}" for report in reports)),
        ("faults", *(str(report.faults.total()) for report in reports)),
        *((f"  {kind}", *(str(report.faults[kind]) for report in reports)) for kind in FAULTS),
        ("events committed", *(f"{report.committed:,}" for report in reports)),
        ("clients", *(str(report.clients) for report in reports)),
        ("deliveries", *(f"{report.verdict.heard:,}" for report in reports)),
        ("lost", *(str(report.verdict.lost) for report in reports)),
        ("repeated", *(str(report.verdict.repeated) for report in reports)),
        ("out of order", *(str(report.verdict.disordered) for report in reports)),
        ("gaps announced", *(str(report.gaps.total()) for report in reports)),
        *((f"  {kind}", *(str(report.gaps[kind]) for report in reports)) for kind in _gap_kinds(reports)),
        ("  missing, deliveries", *(f"{report.verdict.announced:,}" for report in reports)),
        ("most LISTEN rows each", *(str(report.rows) for report in reports)),
        ("longest recovery, s", *(f"{max(report.recovery.values(), default=0):.1f}" for report in reports)),
    ]
    return "\n".join(f"{name:24}" + "".join(f"{value:>12}" for value in values) for name, *values in rows)


def _gap_kinds(reports: Sequence[Report]) -> list[str]:
    return sorted({kind for report in reports for kind in report.gaps})


if __name__ == "__main__":
    sys.exit(main())
