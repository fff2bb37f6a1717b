"""One check's result."""

from enum import Enum
from typing import NamedTuple


class CheckStatus(Enum):
    """How a check ended; only a failed one makes the whole fail."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Check(NamedTuple):
    """What was looked at, how it is, in one line, and what to do about it if it isn't well."""

    name: str
    status: CheckStatus
    text: str
    remedy: str | None


def passed(name: str, text: str) -> Check:
    """It is as it should be."""
    return Check(name, CheckStatus.OK, text, None)


def warned(name: str, text: str, remedy: str) -> Check:
    """It works, but somebody should look at it."""
    return Check(name, CheckStatus.WARNING, text, remedy)


def failed(name: str, text: str, remedy: str) -> Check:
    """It doesn't work."""
    return Check(name, CheckStatus.FAILED, text, remedy)
