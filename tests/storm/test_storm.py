"""Clients that all reconnect at once are all served, with few queries to PostgreSQL.

`python -m tests.storm` prints the figures.
"""

import sys
from pathlib import Path

import pytest

from tests.storm.__main__ import run, table
from tests.storm.environment import Environment

_QUERIES_SECONDS = 10  # in which a worker asks at most three times for a match


@pytest.mark.parametrize(
    ("clients", "workers", "matches"),
    [
        (200, 2, 4),
        pytest.param(5000, 2, 20, marks=[pytest.mark.long, pytest.mark.timeout(300)]),
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
        assert storm.queries <= 3 * workers * (1 + storm.all // _QUERIES_SECONDS)
    assert [storms[0].snapshots, storms[1].recovered] == [0, 0]


@pytest.mark.parametrize(
    ("clients", "matches", "query_seconds"),
    [(200, 50, 0.15), pytest.param(5000, 1000, 0.02, marks=[pytest.mark.long, pytest.mark.timeout(300)])],
)
def test_after_a_gap_every_client_gets_a_snapshot_and_is_told_if_it_waits(
    tmp_path: Path, database: str, settings: dict[str, str], clients: int, matches: int, query_seconds: float
) -> None:
    given = {**settings, "SNAPSHOT_TIMEOUT": "3", "SNAPSHOT_POOL": "2"}
    with Environment(tmp_path, database, given, clients, 1, matches, query_seconds=query_seconds) as environment:
        environment.connect_clients()
        gap = environment.gap()
        sys.stdout.write(f"{gap}\n")
        environment.assert_complete()
        log = environment.app.log
    assert "Traceback" not in log
    assert 1 <= gap.connections <= 2
    assert gap.stale > 0, "the last ones wait for more than half a second"
