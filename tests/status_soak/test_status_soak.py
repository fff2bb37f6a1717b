from pathlib import Path

import pytest

from tests.status_soak.soak import Soak
from tests.support.chromium import launch_chromium


@pytest.mark.long
def test_the_status_page_does_not_leak_memory_at_200_events_per_second(tmp_path: Path) -> None:
    """The short form of `python -m tests.status_soak`."""
    with launch_chromium() as browser:
        result = Soak(tmp_path, minutes=0.5, per_second=200, report=print).run(browser)
    assert result.events > 5000
    assert {sample.rows for sample in result.samples} == {200}
    assert max(sample.nodes for sample in result.samples) < 1.1 * result.samples[0].nodes
    assert result.cpu_without_page > 0
