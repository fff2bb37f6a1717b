"""Broken rules, which the schedules must notice."""

import logging

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.violation import Violation
from tests.simulation.world import World

STEPS = 210
SCHEDULES = 2_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_rule_is_noticed(mutation: type, monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable(logging.CRITICAL)
    mutation(monkeypatch)
    try:
        for seed in range(SCHEDULES):
            World(seed).run(STEPS)
    except (Violation, ValueError, IndexError, KeyError):
        return
    finally:
        logging.disable(logging.NOTSET)
    pytest.fail(f"{SCHEDULES} schedules did not notice: {mutation.__doc__}")
