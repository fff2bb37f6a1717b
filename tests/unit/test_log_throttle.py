"""One line for each cause and minute."""

import logging

import pytest

from app.core.log_throttle import MAX_CAUSES, LogThrottle, escaped


class Log:
    """A throttle whose lines and clock are the test's."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.now = 1000.0
        self.say = LogThrottle(logging.getLogger("throttled"), clock=lambda: self.now)
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        return self._caplog.messages


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


def test_the_first_line_of_a_cause_comes_at_once_and_the_rest_are_counted_into_the_next(log: Log) -> None:
    for _ in range(5):
        log.say("expired", "a token was refused: %s", "expired")
    log.say("origin", "an origin was refused")
    assert log.lines == ["a token was refused: expired", "an origin was refused"]
    log.now += 61
    log.say("expired", "a token was refused: %s", "expired")
    assert log.lines[2:] == ["a token was refused: expired (and 4 more in 61 s)"]
    log.now += 61
    log.say("expired", "a token was refused: %s", "expired")
    assert log.lines[3:] == ["a token was refused: expired"]


def test_too_many_causes_share_one_line_until_there_is_room_again(log: Log) -> None:
    for number in range(10_000):
        log.say(f"cause {number}", "%d", number)
    assert len(log.lines) == MAX_CAUSES
    log.now += 61
    log.say("cause 20000", "room again")
    log.say("cause 20001", "for another")
    assert log.lines[MAX_CAUSES:] == ["room again", "for another"]


def test_what_a_stranger_sent_cannot_write_to_a_terminal_nor_begin_a_line(log: Log) -> None:
    log.say("id", "no such match: %s", "\x1b]0;owned\x07\r\n2026 app ERROR forged\x9b1m\u2028\u202e\udc00 é")
    assert log.lines == [r"no such match: \x1b]0;owned\x07\r\n2026 app ERROR forged\x9b1m\u2028\u202e\udc00 é"]
    assert len(escaped("x" * 100_000)) < 600
    assert escaped("100 %s") == "100 %s"
