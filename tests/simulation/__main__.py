"""`python -m tests.simulation [--source wal] [--schedules 20000] [--first SEED] [--minutes 40]`: random schedules.

They run on every core.

The exit code is 1 if a guarantee was broken, or if a transition of a listener's state never happened, although there
was time for all schedules.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from math import inf

from tests.simulation.schedules import TRANSITIONS, WORLDS, simulate_on_every_core
from tests.support.output import print_line


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--source", choices=WORLDS, default="notify", help="what the listeners read, as SOURCE")
    parser.add_argument("--schedules", type=int, default=20_000, help="how many")
    parser.add_argument("--first", type=int, default=1_000, help="the first one's seed; the tests run those from 0 on")
    parser.add_argument("--minutes", type=float, default=inf, help="after which no more are begun, on a slow machine")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        seen, count = simulate_on_every_core(options.first, options.schedules, options.source, 60 * options.minutes)
    except AssertionError as violation:
        print_line(str(violation))
        return 1
    for name, times in sorted(seen.items()):
        print_line(f"{times:10,}  {name}")
    is_complete = count == options.schedules
    missing = [name for name in TRANSITIONS[options.source] if is_complete and not seen[name]]
    for name in missing:
        print_line(f"never: {name}")
    print_line(f"{count:,} of {options.schedules:,} schedules, 0 violations, {time.monotonic() - began:.0f} s")
    return int(bool(missing) or count == 0)


if __name__ == "__main__":
    sys.exit(main())
