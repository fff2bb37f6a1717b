"""Waiting out a server that is away."""

import logging

import pytest

from notifymux.outage import Outage, one_line

NOTHING_THERE = "connection refused"


@pytest.fixture
def outage(caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.INFO)
    return Outage("PostgreSQL", logging.getLogger("test"))


def test_the_delays_grow_to_five_seconds_and_never_beyond(outage: Outage) -> None:
    delays = [outage.failed(NOTHING_THERE) for _ in range(1000)]
    assert delays[0] <= 0.2
    assert delays[2] <= 0.8
    assert all(2.5 <= delay <= 5.0 for delay in delays[10:])


def test_the_delays_are_jittered_so_that_a_thousand_programs_do_not_come_at_once(outage: Outage) -> None:
    for _ in range(20):
        outage.failed(NOTHING_THERE)
    delays = sorted(outage.failed(NOTHING_THERE) for _ in range(200))
    assert len(set(delays)) > 190
    assert delays[-1] - delays[0] > 1.5


def test_a_cap_of_ones_own_is_kept() -> None:
    outage = Outage("Redis", logging.getLogger("test"), cap=0.5)
    assert all(outage.failed(NOTHING_THERE) <= 0.5 for _ in range(100))


def test_after_an_answer_the_delays_begin_anew(outage: Outage) -> None:
    for _ in range(20):
        outage.failed(NOTHING_THERE)
    outage.over()
    assert outage.failed(NOTHING_THERE) <= 0.2


def test_an_outage_is_said_once_with_its_reason_and_its_end_once(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        outage.failed(OSError("connection\nrefused"))
    for _ in range(3):
        outage.over()
    away, back = caplog.messages
    assert away.startswith("PostgreSQL is away: connection refused; ")
    assert "5 s" in away
    assert back == "PostgreSQL is back after 50 failed tries"


def test_each_reason_is_said_once_in_an_outage(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for reason in ("refused", "refused", "starting up", "starting up", "refused"):
        outage.failed(reason)
    assert [message.split(": ")[1].split(";")[0] for message in caplog.messages] == [
        "refused",
        "starting up",
    ]


def test_an_answer_without_an_outage_says_nothing(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    outage.over()
    assert caplog.messages == []
    assert outage.reason is None


def test_the_reason_stands_while_it_lasts(outage: Outage) -> None:
    outage.failed("refused")
    assert outage.reason == "refused"
    outage.over()
    assert outage.reason is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("a\n\tb  c"), "a b c"),
        ("text", "text"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("\n"), "ValueError"),
    ],
)
def test_an_error_is_one_line(error: BaseException | str, line: str) -> None:
    assert one_line(error) == line
