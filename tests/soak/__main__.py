"""`python -m tests.soak --minutes 60`: faults of all kinds for an hour, and how soon clients were served again."""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import Soak, growth

_MOST_GROWTH = 0.05
_SETTLED = 600.0  # seconds after which nothing may grow


def main() -> None:
    """Prints the table; ends with 1 if something was not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder) / "pod", given.minutes, given.seed, say)
        soak.run()
    say(f"\n{'fault':<20}{'times':>7}{'median s':>10}{'worst s':>10}")
    for fault, times in sorted(soak.times.items()):
        say(f"{fault!s:<20}{len(times):>7}{statistics.median(times):>10.1f}{max(times):>10.1f}")
    settled = [sample for sample in soak.samples if sample.at >= min(_SETTLED, given.minutes * 20)]
    memory, files = (growth(settled, field) for field in ("memory", "files"))
    last = soak.samples[-1]
    say(f"\nmemory {last.memory / 2**20:.0f} MiB, {memory:+.1%}; open files {last.files}, {files:+.1%}")
    say(f"zombies {last.zombies}; states {soak.states}")
    wrong = [line for viewer in soak.viewers for line in viewer.wrong]
    heard = sum(viewer.heard for viewer in soak.viewers)
    say(f"{len(soak.viewers)} clients heard {heard} events, {len(wrong)} out of order or twice")
    grew = max(memory, files) >= _MOST_GROWTH
    sys.exit(bool(wrong or grew or last.zombies or set(soak.states.values()) != {"RUNNING"}))


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
