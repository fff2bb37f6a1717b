"""Random schedules of faults, and mutations of the rules that such schedules must notice."""

import logging
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from listener.sequencer.active import Active, Role
from tests.simulation.mutations import MUTATIONS
from tests.simulation.servers import Violation
from tests.simulation.world import World

STEPS = 210
SHORT, LONG = 2_000, 20_000
CHUNK = 100

# Every way in which a listener may go from where it is; each must be seen.
TRANSITIONS = [
    "new -> marked on ReadHead",
    "new -> primary on heard",
    "marked -> searching on heard",
    "marked -> primary on heard",
    "marked -> new on heard",
    "searching on LookForOthers",
    "searching on Scan",
    "searching on ReadHead",
    "searching -> standby on Scan",
    "searching -> new on Scan",
    "searching -> new on heard",
    "searching -> marked on heard",
    "searching -> primary on heard",
    "standby on Load",
    "standby on ReadHead",
    "standby on ReadEntry",
    "standby on Append ok",
    "standby -> primary on Append ok",
    "standby -> new on heard",
    "standby -> standby/hole on Append behind",
    "standby -> standby/hole on Append gap",
    "standby/hole -> standby on heard",
    "primary on Append ok",
    "primary on ReadEntry",
    "primary -> standby on Append ok",
    "primary -> standby on heard",
    "primary -> new on heard",
    "primary -> new on Append superseded",
    "primary -> primary/hole on Append behind",
    "primary -> primary/hole on Append gap",
    "primary/hole -> primary on heard",
]


def simulate(first: int, count: int) -> Counter[str]:
    """Runs schedules; a failing one is named by its seed, which replays it."""
    logging.disable(logging.CRITICAL)
    transitions: Counter[str] = Counter()
    for seed in range(first, first + count):
        try:
            World(seed, transitions=transitions).run(STEPS)
        except Violation as violation:
            raise AssertionError(f"World({seed}).run({STEPS}): {violation}") from None
    return transitions


def run(schedules: int) -> Counter[str]:
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        parts = [pool.submit(simulate, first, CHUNK) for first in range(0, schedules, CHUNK)]
        total: Counter[str] = sum((part.result() for part in parts), Counter())
    sys.stdout.writelines(f"{count:10,}  {name}\n" for name, count in sorted(total.items()))
    return total


@pytest.mark.parametrize(
    "schedules",
    [
        pytest.param(SHORT, marks=pytest.mark.timeout(240)),
        pytest.param(LONG, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_no_schedule_of_faults_breaks_a_promise_and_every_transition_is_seen(schedules: int) -> None:
    seen = run(schedules)
    assert [name for name in TRANSITIONS if not seen[name]] == []


def miscounting() -> bool:
    """One listener misses one notification, as nothing in PostgreSQL lets it; whether anybody finds out (rule 11)."""
    world = World(0)
    world.settle()
    epoch = world.redis.entries[-1].id.epoch
    standby = next(listener for listener in world.listeners if listener.count and listener.count.role is Role.STANDBY)
    world.trusting = True
    for _ in range(200):
        if standby.session and standby.session.queue:
            standby.session.queue.popleft()
            break
        world.tick()
    for _ in range(400):
        world.tick()
    return world.redis.entries[-1].id.epoch > epoch


def test_a_listener_that_miscounts_is_found_out_by_its_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable(logging.CRITICAL)
    try:
        assert miscounting()
        monkeypatch.setattr(Active, "entry_read", lambda count, *_: setattr(count, "_canary", None))
        assert not miscounting()
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_rule_is_noticed(mutation: type, monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable(logging.CRITICAL)
    mutation(monkeypatch)
    try:
        for seed in range(SHORT):
            World(seed).run(STEPS)
    except (Violation, ValueError, IndexError, KeyError):
        return
    finally:
        logging.disable(logging.NOTSET)
    pytest.fail(f"{SHORT} schedules did not notice: {mutation.__doc__}")
