"""Tests wait for conditions, never for time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], within: float = 20.0, what: str | Callable[[], str] = "") -> T:
    """Call `condition` until its result is true, and return this result.

    Args:
        condition: called every 20 ms.
        within: timeout in seconds.
        what: the condition in words, for the error; a function is called when the timeout expires.

    Raises:
        AssertionError: the timeout expired.
    """
    deadline = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within:g} s: {what() if callable(what) else what or condition}")
        time.sleep(0.02)
    return found


def hold_for(seconds: float, condition: Callable[[], object], what: str = "") -> None:
    """Assert every 20 ms for `seconds` that `condition()` is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), f"not held for {seconds:g} s: {what or condition}"
        time.sleep(0.02)
