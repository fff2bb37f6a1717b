"""Text from anybody is one printable line."""

import logging

from hypothesis import given
from hypothesis import strategies as st

from app.core.logging_config import logging_config
from notifymux.printable import printable
from notifymux.reconnect import one_line


@given(st.text())
def test_whatever_a_text_has_is_printed_on_one_line(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()
    assert one_line(ValueError(text)).isprintable()


def test_an_errors_line_is_bounded() -> None:
    assert len(one_line("x" * 10**6)) < 1100


def test_a_line_of_the_log_has_no_terminal_escape_whatever_logs_it() -> None:
    formatter = logging_config("app", "info", "text")["formatters"]["line"]
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "who: %s", ("\x1b]0;owned\x07\r\nfake",), None)
    line = formatter["()"](formatter["program"]).format(record)
    assert line.endswith(r" app INFO who: \x1b]0;owned\x07\r\nfake")
