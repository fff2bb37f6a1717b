"""Which clock differs from PostgreSQL's or from the others', and which latencies are plausible."""

import logging

import pytest

from app.core.canary import Canary
from app.core.clock_difference import ClockDifference, PlausibleLatency
from app.core.heartbeat import RegistryEntry
from app.monitoring.clocks import clock_problems


def observed(sent: float, clock: float, received: float) -> float | None:
    compared = ClockDifference(logging.getLogger(__name__), "this process")
    compared.observe(Canary("token", sent=sent, clock=clock), received)
    return compared.seconds


@pytest.mark.parametrize(
    ("sent", "clock", "received", "ahead"),
    [
        (100.0, 100.1, 100.2, 0.0),
        (100.0, 100.0, 160.0, 0.0),  # it came back late, and both read the same time
        (100.0, 160.0, 160.0, 0.0),  # PostgreSQL read its clock late
        (3700.0, 100.0, 3701.0, 3600.0),
        (100.0, 3700.0, 101.0, -3599.0),
    ],
)
def test_a_delay_is_no_difference_of_clocks(sent: float, clock: float, received: float, ahead: float) -> None:
    assert observed(sent, clock, received) == ahead


def test_a_difference_is_logged_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    compared = ClockDifference(logging.getLogger(__name__), "this process")
    for ahead in (0.0, 3600.0, 3601.0, 1.0):
        compared.observe(Canary("token", sent=100.0 + ahead, clock=100.0), 100.1 + ahead)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "this process's clock is 3600 s ahead of PostgreSQL's" in caplog.text


def test_a_latency_is_plausible_unless_all_recent_ones_are_too_long_or_one_is_negative() -> None:
    prompt = PlausibleLatency()
    assert [prompt.check(seconds) for seconds in (0.001, 60.0, 59.0, -0.002)] == [0.001, 60.0, 59.0, 0.0]
    ahead, behind = PlausibleLatency(), PlausibleLatency()
    assert [ahead.check(3600.001), ahead.check(3600.002), ahead.check(0.5)] == [None, None, 0.5]
    assert [behind.check(-3599.999), behind.check(-3599.998)] == [None, None]


@pytest.mark.parametrize(
    ("clocks", "named"),
    [
        ({"this worker": 0.0}, []),
        ({"this worker": 0.0, "PostgreSQL": 4.0}, []),
        ({"this worker": 0.0, "PostgreSQL": -3600.0}, ["this worker's clock is 3600 s ahead of PostgreSQL's"]),
        (
            {"this worker": 0.0, "PostgreSQL": 0.1, "listener a/listener": -3600.0},
            ["listener a/listener's clock is 3600 s behind the others'"],
        ),
        (
            {"this worker": 0.0, "PostgreSQL": 60.0, "listener a/listener": 0.2},
            ["PostgreSQL's clock is 60 s ahead of the others'"],
        ),
        (
            {"this worker": 0.0, "PostgreSQL": 60.0, "listener a/listener": 60.0, "pod b": 60.0},
            ["this worker's clock is 60 s behind the others'"],
        ),
    ],
)
def test_the_clock_that_differs_from_most_is_named(clocks: dict[str, float], named: list[str]) -> None:
    assert [problem.partition(":")[0] for problem in clock_problems(clocks)] == named


def test_a_heartbeat_tells_how_far_its_senders_clock_is_ahead() -> None:
    entry = RegistryEntry("key", {"state": "running", "beat_at": "1000.5"}, 0.5)
    assert entry.clock_ahead(991.0) == 10.0
    assert entry._replace(age=30.0).clock_ahead(991.0) is None
    assert entry._replace(fields={"state": "stopped", "beat_at": "1000.5"}).clock_ahead(991.0) is None
    assert entry._replace(fields={"state": "running", "beat_at": ""}).clock_ahead(991.0) is None
