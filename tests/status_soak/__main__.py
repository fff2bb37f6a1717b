"""`python -m tests.status_soak [--minutes 10] [--per-second 200]`: what the status page costs, and whether it grows.

It prints the worker's share of a core without and with the page at the same load, and what the browser holds: more and
more in the first quarter of an hour, until the plots are full.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from tests.status_soak.soak import Sample, Soak
from tests.support.chromium import chromium


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.status_soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for which the page is open")
    parser.add_argument("--per-second", type=float, default=200, help="events")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        folder.chmod(0o755)  # the servers run under an account of their own
        result = Soak(folder, given.minutes, given.per_second, say).run(browser)
    say(f"\n{result.events} events; the worker's share of a core: {result.alone:.2%} without the page")
    say(f"{result.watched:.2%} with it, {result.watched - result.alone:+.2%}")
    for what in ("heap", "nodes"):
        say(f"{what}, medians of the first quarter and the last: {ends(result.samples, what)}")


def ends(samples: list[Sample], what: str) -> str:
    quarter = max(1, len(samples) // 4)
    first, last = (
        statistics.median(getattr(sample, what) for sample in part) for part in (samples[:quarter], samples[-quarter:])
    )
    return f"{first:,.0f}, {last:,.0f} ({last / first - 1:+.1%})"


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
