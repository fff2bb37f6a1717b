"""Tries every schedule of a small world: `python -m tests.simulation.exhaustive`."""

import argparse
import logging
import sys
from typing import NamedTuple

from tests.simulation.small_world import COMMITS, SmallWorld
from tests.simulation.violation import Violation

ACTIONS, FAULTS = 4, 2


class Found(NamedTuple):
    """What an exhaustive run found."""

    states: int
    schedules: int
    violation: str  # the first, with its schedule; empty without any


def explore(actions: int, faults: int) -> Found:
    """Try every schedule of at most `actions` actions and `faults` faults, after which the world heals.

    A schedule is a sequence of choices. Each run repeats a prefix of the last one with its last choice changed, and
    goes on with first choices. It is cut where it reaches a state that was seen with as many actions left.
    """
    seen: set[tuple[int, int]] = set()
    choices: list[int] = []
    schedules = 0
    while True:
        schedules += 1
        options: list[int] = []
        names: list[str] = []
        try:
            world, is_new = SmallWorld(faults), True
            while len(names) < actions:
                possible = world.actions()
                options.append(len(possible))
                if len(names) == len(choices):
                    choices.append(0)
                name = list(possible)[choices[len(names)]]
                names.append(name)
                possible[name]()
                if len(names) == len(choices):
                    state = (world.state(), actions - len(names))
                    is_new = state not in seen
                    seen.add(state)
                    if not is_new:
                        break
            if is_new:
                world.finish()
        except Violation as violation:
            return Found(len(seen), schedules, f"{', '.join(names)}: {violation}")
        del choices[len(names) :]
        while choices and choices[-1] == options[len(choices) - 1] - 1:
            choices.pop()
        if not choices:
            return Found(len(seen), schedules, "")
        choices[-1] += 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.exhaustive", description=__doc__)
    parser.add_argument("--actions", type=int, default=ACTIONS, help="of a schedule, before the world heals")
    parser.add_argument("--faults", type=int, default=FAULTS, help="of a schedule, at most")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = explore(arguments.actions, arguments.faults)
    scope = f"2 listeners, 1 worker, {COMMITS} commits, {arguments.faults} faults, {arguments.actions} actions"
    if found.violation:
        sys.stdout.write(f"{scope}: {found.states:,} states, a violation\n{found.violation}\n")
        return 1
    sys.stdout.write(f"every schedule of this scope ({scope}), {found.states:,} states, 0 violations\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
