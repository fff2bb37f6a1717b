"""`python -m tests.status_soak [--minutes 10] [--per-second 200]`: what the status page costs, and whether it leaks.

It prints the worker's CPU usage without and with the page under the same load, and the memory of the browser over time.
The browser's memory grows during the first 15 minutes, until the plots are full.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.status_soak.soak import Sample, Soak
from tests.support.chromium import launch_chromium
from tests.support.output import print_line


def main() -> None:
    """Run the soak and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.status_soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long the page is open")
    parser.add_argument("--per-second", type=float, default=200, help="events per second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, launch_chromium() as browser:
        folder = Path(name)
        folder.chmod(0o755)  # the servers run under another account
        result = Soak(folder, options.minutes, options.per_second, print_line).run(browser)
    print_line(
        f"\n{result.events} events; the worker's share of a core: {result.cpu_without_page:.2%} without the page"
    )
    print_line(f"{result.cpu_with_page:.2%} with it, {result.cpu_with_page - result.cpu_without_page:+.2%}")
    for field in ("heap", "nodes"):
        print_line(f"{field}, medians of the first quarter and the last: {growth(result.samples, field)}")


def growth(samples: list[Sample], field: str) -> str:
    quarter = max(1, len(samples) // 4)
    first, last = (
        statistics.median(getattr(sample, field) for sample in part) for part in (samples[:quarter], samples[-quarter:])
    )
    return f"{first:,.0f}, {last:,.0f} ({last / first - 1:+.1%})"


if __name__ == "__main__":
    main()
