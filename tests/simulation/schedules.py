"""Random schedules of faults, each replayed by its seed."""

import logging
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from math import inf
from multiprocessing import get_context

from tests.simulation.violation import Violation
from tests.simulation.wal_world import WalWorld
from tests.simulation.world import World

WORLDS: dict[str, type[World]] = {"notify": World, "wal": WalWorld}  # by SOURCE
STEPS = 210
_CHUNK = 50

# Every transition of a listener; the schedules must cause each of them.
_NOTIFY_TRANSITIONS = [
    "new -> marked on ReadHead",
    "new -> primary on notifications",
    "marked -> searching on notifications",
    "marked -> primary on notifications",
    "marked -> new on notifications",
    "searching on CheckOtherListeners",
    "searching on ReadAfter",
    "searching on ReadHead",
    "searching -> standby on ReadAfter",
    "searching -> new on ReadAfter",
    "searching -> new on notifications",
    "searching -> marked on notifications",
    "searching -> primary on notifications",
    "standby on ReadRecent",
    "standby on ReadHead",
    "standby on ReadEntry",
    "standby on Append ok",
    "standby -> primary on Append ok",
    "standby -> new on notifications",
    "standby -> standby/gap on Append behind",
    "standby -> standby/gap on Append gap",
    "standby/gap -> standby on notifications",
    "primary on Append ok",
    "primary on ReadEntry",
    "primary -> standby on Append ok",
    "primary -> standby on notifications",
    "primary -> new on notifications",
    "primary -> new on Append superseded",
    "primary -> primary/gap on Append behind",
    "primary -> primary/gap on Append gap",
    "primary/gap -> primary on notifications",
]


_WAL_TRANSITIONS = [
    "new -> looking on ReadRecent",
    "new -> begun on ReadRecent",
    "new -> foreign on ReadRecent",
    "looking -> primary on notifications",
    "looking -> begun on notifications",
    "foreign -> begun on ReadRecent",
    "begun -> primary on notifications",
    "primary on Append ok",
    "primary on ReadRecent",
    "primary on ReadEntry",
    "primary -> new on notifications",
    "primary -> primary/gap on Append behind",
    "primary -> primary/gap on Append gap",
    "primary/gap -> primary on notifications",
]

TRANSITIONS = {"notify": _NOTIFY_TRANSITIONS, "wal": _WAL_TRANSITIONS}


def simulate(first: int, count: int, source: str = "notify") -> Counter[str]:
    """Run schedules; a failing one is reported by its seed, which replays it."""
    logging.disable(logging.CRITICAL)
    transitions: Counter[str] = Counter()
    try:
        for seed in range(first, first + count):
            try:
                WORLDS[source](seed, transitions=transitions).run(STEPS)
            except Violation as violation:
                raise AssertionError(f"{WORLDS[source].__name__}({seed}).run({STEPS}): {violation}") from None
    finally:
        logging.disable(logging.NOTSET)
    return transitions


def simulate_on_every_core(
    first: int, count: int, source: str = "notify", seconds: float = inf
) -> tuple[Counter[str], int]:
    """Do the same in one process for each core; return the number of schedules too.

    After so many seconds no more are begun.
    """
    until = time.monotonic() + seconds
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        chunks = [(at, min(_CHUNK, first + count - at)) for at in range(first, first + count, _CHUNK)]
        parts = [pool.submit(_simulate_in_time, *chunk, source, until) for chunk in chunks]
        done = [part.result() for part in parts]
    return sum((seen for seen, _ in done), Counter()), sum(number for _, number in done)


def _simulate_in_time(first: int, count: int, source: str, until: float) -> tuple[Counter[str], int]:
    """Simulate schedules unless it is too late; `until` is a time of the monotonic clock, which processes share."""
    if time.monotonic() >= until:
        return Counter(), 0
    return simulate(first, count, source), count
