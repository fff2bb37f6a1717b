"""A pod's clock an hour off: events flow, and what is measured with it is not believed."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartApp, StartListener, Verify
from tests.support.canaries import Canaries
from tests.support.fake_clock import clock_off_by
from tests.support.numbered import MATCH, Numbered
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

HOUR = 3600


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["ahead", "behind"])
@pytest.mark.parametrize("who", ["listener", "worker", "both"])
def test_a_clock_that_is_an_hour_off_is_named_and_what_it_measures_is_not_shown(
    settings: dict[str, str],
    database: str,
    events: Numbered,
    start_listener: StartListener,
    start_app: StartApp,
    tmp_path: Path,
    who: str,
    seconds: int,
) -> None:
    wrong = settings | clock_off_by(seconds, tmp_path)
    start_listener(settings if who == "worker" else wrong).wait_until_aligned()
    app = start_app(settings if who == "listener" else wrong).wait_until_ready()
    with app.client(MATCH) as client, Canaries(database) as canaries:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        canaries.pass_by(4)

        def status() -> Any:
            return wait_until(lambda: app.get("/api/status")[1])

        wait_until(lambda: any("clock" in problem for problem in status()["problems"]), 8, lambda: summary(status()))
        for p50 in (status()["latency"]["p50_ms"], status()["latency"]["hops"]["postgres_listener_ms"]):
            assert p50 is None or 0 < p50 < 10_000, status()["latency"]


def test_verify_shows_no_time_that_a_wrong_clock_measured(
    settings: dict[str, str], start_listener: StartListener, verify: Verify, tmp_path: Path
) -> None:
    start_listener(settings | clock_off_by(HOUR, tmp_path)).wait_until_aligned()
    result = verify(settings, "--send")
    assert re.search(r"an unknown time: two clocks differ by about 360\d s", result.text("channel match_change"))


def summary(status: Any) -> str:
    return f"{status['state']}, {status['problems']}, {status['latency']}"
