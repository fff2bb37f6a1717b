"""Broken rules, which the schedules must notice: those that are written out, or else the random ones."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation import mutations, reserves_directed, reserves_mutations, wal_directed, wal_mutations
from tests.simulation.directed import run_directed
from tests.simulation.mutations import MUTATIONS
from tests.simulation.violation import Violation
from tests.simulation.wal_world import WalWorld
from tests.simulation.world import World

STEPS = 210
SCHEDULES = 2_000

# The kind of world that notices a mutation sooner than a random one.
KINDS = {
    mutations.rule_10_a_full_buffer_drops_its_oldest_events: "rough",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_rule_is_noticed(mutation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)
    _expect_violation(mutation, run_directed, lambda seed: World(seed, kind=KINDS.get(mutation)))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", wal_mutations.MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_rule_of_the_wal_is_noticed(mutation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)
    _expect_violation(mutation, wal_directed.run_directed, WalWorld)


@pytest.mark.parametrize("mutation", reserves_mutations.MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_rule_of_the_reserves_is_noticed(mutation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)
    _expect_violation(mutation, reserves_directed.run_directed, World)


def _expect_violation(mutation: Any, run_directed: Callable[[], None], world: Callable[[int], World]) -> None:
    logging.disable(logging.CRITICAL)
    try:
        run_directed()
        for seed in range(SCHEDULES):
            world(seed).run(STEPS)
    except (Violation, ValueError, IndexError, KeyError, TypeError):
        return
    finally:
        logging.disable(logging.NOTSET)
    pytest.fail(f"{SCHEDULES} schedules did not notice: {mutation.__doc__}")
