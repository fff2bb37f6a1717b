"""`python -m tests.soak [--minutes 60] [--seed 1]`: random faults of the appliance, and how fast it recovers.

It prints the recovery times by fault and the resources of all processes. The exit code is 1 if a client received an
event twice or out of order, if memory or open files grew, or if a program does not run at the end.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import Soak, growth
from tests.support.output import print_line

_MAX_GROWTH = 0.05
_SETTLED_AFTER_SECONDS = 600.0  # later, memory and open files must not grow


def main() -> None:
    """Run the soak and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder) / "pod", options.minutes, options.seed, print_line)
        soak.run()
    print_line(f"\n{'fault':<20}{'times':>7}{'median s':>10}{'worst s':>10}")
    for fault, seconds in sorted(soak.recovery.items()):
        print_line(f"{fault!s:<20}{len(seconds):>7}{statistics.median(seconds):>10.1f}{max(seconds):>10.1f}")
    settled = [sample for sample in soak.samples if sample.at >= min(_SETTLED_AFTER_SECONDS, options.minutes * 20)]
    memory, files = (growth(settled, field) for field in ("memory", "files"))
    last = soak.samples[-1]
    print_line(f"\nmemory {last.memory / 2**20:.0f} MiB, {memory:+.1%}; open files {last.files}, {files:+.1%}")
    print_line(f"zombies {last.zombies}; states {soak.states}")
    errors = [error for client in soak.clients for error in client.errors]
    received = sum(client.received for client in soak.clients)
    print_line(f"{len(soak.clients)} clients received {received} events, {len(errors)} repeated or out of order")
    grew = max(memory, files) >= _MAX_GROWTH
    sys.exit(bool(errors or grew or last.zombies or set(soak.states.values()) != {"RUNNING"}))


if __name__ == "__main__":
    main()
