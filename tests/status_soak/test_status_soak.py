from pathlib import Path

import pytest

from tests.status_soak.soak import Soak
from tests.support.chromium import chromium


@pytest.mark.long
def test_a_page_that_watches_200_events_a_second_holds_as_much_at_the_end_as_at_the_beginning(
    tmp_path: Path,
) -> None:
    """The short form of `python -m tests.status_soak`."""
    with chromium() as browser:
        result = Soak(tmp_path, minutes=0.5, per_second=200, say=print).run(browser)
    assert result.events > 5000
    assert {sample.rows for sample in result.samples} == {200}
    assert max(sample.nodes for sample in result.samples) < 1.1 * result.samples[0].nodes
    assert result.alone > 0
