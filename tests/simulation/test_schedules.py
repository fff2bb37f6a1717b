"""Random schedules of faults."""

import logging
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from app.core.listen_session import Notification
from listener.sequencer.active import Active, Role
from tests.simulation.postgres import CHANNEL, Backend
from tests.simulation.violation import Violation
from tests.simulation.world import World

STEPS = 210
SHORT, LONG = 100, 2_000
CHUNK = 50

# Every transition of a listener; the schedules must cause each of them.
TRANSITIONS = [
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


def simulate(first: int, count: int) -> Counter[str]:
    """Run schedules; a failing one is reported by its seed, which replays it."""
    logging.disable(logging.CRITICAL)
    transitions: Counter[str] = Counter()
    try:
        for seed in range(first, first + count):
            try:
                World(seed, transitions=transitions).run(STEPS)
            except Violation as violation:
                raise AssertionError(f"World({seed}).run({STEPS}): {violation}") from None
    finally:
        logging.disable(logging.NOTSET)
    return transitions


def run(schedules: int) -> Counter[str]:
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        parts = [pool.submit(simulate, first, CHUNK) for first in range(0, schedules, CHUNK)]
        total: Counter[str] = sum((part.result() for part in parts), Counter())
    sys.stdout.writelines(f"{count:10,}  {name}\n" for name, count in sorted(total.items()))
    return total


def test_no_schedule_of_faults_breaks_a_guarantee() -> None:
    simulate(0, SHORT)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_no_schedule_of_many_breaks_a_guarantee_and_every_transition_happens() -> None:
    seen = run(LONG)
    assert [name for name in TRANSITIONS if not seen[name]] == []


def _loses_a_notification(backend: Backend) -> bool:
    if backend.outbox and isinstance(backend.outbox[0], Notification) and backend.outbox[0].channel == CHANNEL:
        backend.outbox.popleft()
        return True
    return False


def miscount_is_found() -> bool:
    """Make one standby miss one notification, which PostgreSQL never does; return whether a new epoch begins."""
    world = World(0, kind="rough")
    world.settle()
    epoch = world.redis.entries[-1].id.epoch
    standby = next(listener for listener in world.listeners if listener.active and listener.active.role is Role.STANDBY)
    world.checks_identities = False
    for _ in range(200):
        if standby.session and _loses_a_notification(standby.session.backend):
            break
        world.tick()
    for _ in range(400):
        world.tick()
    return world.redis.entries[-1].id.epoch > epoch


def test_a_listener_that_miscounts_is_found_by_its_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable(logging.CRITICAL)
    try:
        assert miscount_is_found()
        monkeypatch.setattr(Active, "_entry_read", lambda active, *_: setattr(active, "_unchecked_canary", None))
        assert not miscount_is_found()
    finally:
        logging.disable(logging.NOTSET)
