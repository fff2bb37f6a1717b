"""Tests wait for conditions, never for time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], within: float = 20.0, what: str | Callable[[], str] = "") -> T:
    """Looks until `condition()` is true, and returns what it gave; an AssertionError after `within` seconds.

    `what` is said then; a function is asked then.
    """
    deadline = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within:g} s: {what() if callable(what) else what or condition}")
        time.sleep(0.02)
    return found


def hold_for(seconds: float, condition: Callable[[], object], what: str = "") -> None:
    """Looks for `seconds` and asserts that `condition()` is true at every look."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), f"not held for {seconds:g} s: {what or condition}"
        time.sleep(0.02)
