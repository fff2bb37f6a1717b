"""Clients that all come back at once are all served, and PostgreSQL hardly notices.

`python -m tests.storm` prints the figures.
"""

import sys
from pathlib import Path

import pytest

from tests.storm.__main__ import report, run
from tests.storm.environment import Environment


@pytest.mark.parametrize(
    ("clients", "workers", "matches"),
    [
        (200, 2, 4),
        *(pytest.param(5000, workers, 20, marks=[pytest.mark.long, pytest.mark.timeout(300)]) for workers in (1, 2)),
    ],
)
def test_a_crowd_that_comes_back_at_once_is_served_with_three_queries_a_match(
    tmp_path: Path, database: str, settings: dict[str, str], clients: int, workers: int, matches: int
) -> None:
    with Environment(tmp_path, database, settings, clients, workers, matches) as arena:
        memory, rows = run(arena)
        sys.stdout.write(report(arena, memory, rows) + "\n")
        log = arena.app.log
    assert "Traceback" not in log
    for row in rows:
        assert row.recovered + row.snapshots == clients
        assert row.queries <= 3 * workers
    assert [rows[0].snapshots, rows[1].recovered] == [0, 0]
    if clients >= 5000:
        assert max(row.all for row in rows) < 10
