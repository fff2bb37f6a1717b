"""Delays between attempts to reach a server, and what is logged of them."""

import logging

import pytest

from notifymux.reconnect import ReconnectState, one_line

REFUSED = "connection refused"


@pytest.fixture
def state(caplog: pytest.LogCaptureFixture) -> ReconnectState:
    caplog.set_level(logging.INFO)
    return ReconnectState("PostgreSQL", logging.getLogger("test"))


def test_the_delays_grow_to_five_seconds_and_never_beyond(state: ReconnectState) -> None:
    delays = [state.failed(REFUSED) for _ in range(1000)]
    assert delays[0] <= 0.2
    assert delays[2] <= 0.8
    assert all(2.5 <= delay <= 5.0 for delay in delays[10:])


def test_the_delays_are_jittered_so_that_programs_do_not_reconnect_at_once(state: ReconnectState) -> None:
    for _ in range(20):
        state.failed(REFUSED)
    delays = sorted(state.failed(REFUSED) for _ in range(200))
    assert len(set(delays)) > 190
    assert delays[-1] - delays[0] > 1.5


def test_no_delay_is_longer_than_the_cap() -> None:
    state = ReconnectState("Redis", logging.getLogger("test"), cap=0.5)
    assert all(state.failed(REFUSED) <= 0.5 for _ in range(100))


def test_after_an_answer_the_delays_start_small_again(state: ReconnectState) -> None:
    for _ in range(20):
        state.failed(REFUSED)
    state.recovered()
    assert state.failed(REFUSED) <= 0.2


def test_an_outage_is_logged_once_with_its_reason_and_its_end_once(
    state: ReconnectState, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        state.failed(OSError("connection\nrefused"))
    for _ in range(3):
        state.recovered()
    away, back = caplog.messages
    assert away.startswith("PostgreSQL is away: connection refused; ")
    assert "5 s" in away
    assert back == "PostgreSQL is back after 50 failed tries"


def test_each_reason_is_logged_once_in_an_outage(state: ReconnectState, caplog: pytest.LogCaptureFixture) -> None:
    for reason in ("refused", "refused", "starting up", "starting up", "refused"):
        state.failed(reason)
    assert [message.split(": ")[1].split(";")[0] for message in caplog.messages] == [
        "refused",
        "starting up",
    ]


def test_the_reason_is_the_last_one_also_if_it_was_logged_before(state: ReconnectState) -> None:
    for reason in ("refused", "timeout", "refused"):
        state.failed(reason)
    assert state.reason == "refused"


def test_an_answer_without_an_outage_is_not_logged(state: ReconnectState, caplog: pytest.LogCaptureFixture) -> None:
    state.recovered()
    assert caplog.messages == []
    assert state.reason is None


def test_the_reason_is_known_until_the_server_answers(state: ReconnectState) -> None:
    state.failed("refused")
    assert (state.reason, state.reconnects) == ("refused", 0)
    state.recovered()
    assert (state.reason, state.reconnects) == (None, 1)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("a\n\tb  c"), "a b c"),
        ("text", "text"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("\n"), "ValueError"),
        ("unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'user' 'secret'", "unknown command 'HELLO'"),
    ],
)
def test_an_error_is_one_line(error: BaseException | str, line: str) -> None:
    assert one_line(error) == line
