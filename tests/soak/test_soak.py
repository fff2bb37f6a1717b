from pathlib import Path

import pytest

from tests.soak.soak import Soak


@pytest.mark.long
@pytest.mark.timeout(600)
def test_after_minutes_of_faults_every_program_runs_and_no_event_was_repeated(tmp_path: Path) -> None:
    """The short form of `python -m tests.soak`."""
    soak = Soak(tmp_path / "pod", minutes=2.5, seed=5, report=print)
    soak.run()
    assert set(soak.states.values()) == {"RUNNING"}
    assert soak.samples[-1].zombies == 0
    assert [error for client in soak.clients for error in client.errors] == []
    assert all(client.received > 50 for client in soak.clients)
