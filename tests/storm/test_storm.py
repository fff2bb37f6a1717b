"""Clients that all reconnect at once are all served, with few queries to PostgreSQL.

`python -m tests.storm` prints the figures.
"""

import sys
from pathlib import Path

import pytest

from tests.storm.__main__ import run, table
from tests.storm.environment import Environment


@pytest.mark.parametrize(
    ("clients", "workers", "matches"),
    [
        (200, 2, 4),
        *(pytest.param(5000, workers, 20, marks=[pytest.mark.long, pytest.mark.timeout(300)]) for workers in (1, 2)),
    ],
)
def test_clients_that_all_reconnect_at_once_are_served_with_three_queries_per_match(
    tmp_path: Path, database: str, settings: dict[str, str], clients: int, workers: int, matches: int
) -> None:
    with Environment(tmp_path, database, settings, clients, workers, matches) as environment:
        memory, storms = run(environment)
        sys.stdout.write(table(environment, memory, storms) + "\n")
        log = environment.app.log
    assert "Traceback" not in log
    for storm in storms:
        assert storm.recovered + storm.snapshots == clients
        assert storm.queries <= 3 * workers
    assert [storms[0].snapshots, storms[1].recovered] == [0, 0]
    if clients >= 5000:
        assert max(storm.all for storm in storms) < 10
