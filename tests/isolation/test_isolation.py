"""Other load on a worker costs a match no event; `python -m tests.isolation` measures what it costs in time."""

import sys
from pathlib import Path

from tests.isolation.__main__ import measure, table


def test_neither_a_slow_callback_nor_a_stuck_client_nor_a_busy_match_costs_another_match_an_event(
    tmp_path: Path, database: str, settings: dict[str, str]
) -> None:
    results = measure(tmp_path, database, settings, seconds=0.5, rounds=1)
    sys.stdout.write(table(results) + "\n")
    assert [figures.complete for figures in results.values()] == [True] * 4
    assert results["10,000/s"].rates[0] > 1000
