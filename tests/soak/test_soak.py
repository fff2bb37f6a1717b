from pathlib import Path

import pytest

from tests.soak.soak import Soak


@pytest.mark.long
@pytest.mark.timeout(600)
def test_five_minutes_of_faults_leave_everything_running_and_nothing_heard_twice(tmp_path: Path) -> None:
    """The short form of `python -m tests.soak`."""
    soak = Soak(tmp_path / "pod", minutes=5, seed=5, say=print)
    soak.run()
    assert set(soak.states.values()) == {"RUNNING"}
    assert soak.samples[-1].zombies == 0
    assert [line for viewer in soak.viewers for line in viewer.wrong] == []
    assert all(viewer.heard > 100 for viewer in soak.viewers)
