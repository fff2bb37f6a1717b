"""`python -m tests.chaos.rolling_update CHECKOUT [--seed N]`: update from the version in another checkout, under load.

Two pods of the old version are replaced one after the other, once with workers of the old version and once with new
ones. The exit code is 1 if an event was lost, repeated or out of order, or if there was more than one gap.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.environment import Environment
from tests.chaos.report import Report, table
from tests.support.output import print_line
from tests.support.servers import temporary_servers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rolling_update", description=__doc__)
    parser.add_argument("checkout", type=Path, help="a folder with the version to update from")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="of the load")
    options = parser.parse_args(arguments)
    old = {"PYTHONPATH": str(options.checkout.resolve())}
    reports = [update(old, workers, options.seed) for workers in (old, {})]
    print_line(table(reports))
    return int(any(report.gaps.total() > 1 or report.deliveries.errors or _damage(report) for report in reports))


def update(old: dict[str, str], workers: dict[str, str], seed: int) -> Report:
    """Replace two old pods by new ones, while workers with the settings `workers` serve clients; return the report."""
    with (
        temporary_servers("update") as servers,
        tempfile.TemporaryDirectory() as folder,
        Environment(servers, Path(folder), 2, seed, settings=old, app_settings=workers) as environment,
    ):
        new = {"PYTHONPATH": str(Path(__file__).parents[2])}
        environment.run_load(2)
        environment.add_pod(new)  # both versions are alive
        environment.run_load(5)
        environment.rolling_update(new)
        environment.run_load(2)
        report = environment.finish()
    print_line(
        f"workers of the {'old' if workers else 'new'} version: {report.gaps.total()} gaps, {_damage(report)} damaged"
    )
    return report


def _damage(report: Report) -> int:
    return report.deliveries.lost + report.deliveries.repeated + report.deliveries.out_of_order


if __name__ == "__main__":
    sys.exit(main())
