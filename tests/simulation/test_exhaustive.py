"""Every schedule of a small world."""

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.exhaustive import explore


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_no_schedule_of_three_actions_with_a_fault_breaks_a_guarantee() -> None:
    found = explore(actions=3, faults=1)
    assert found.violation == ""
    assert found.states > 300
