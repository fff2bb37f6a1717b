"""One check's result."""

from enum import Enum
from typing import NamedTuple


class CheckStatus(Enum):
    """A check's status; only a failed check makes `verify` fail."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Check(NamedTuple):
    """What was checked, the result in one line, and the remedy unless it passed."""

    name: str
    status: CheckStatus
    text: str
    remedy: str | None


def passed(name: str, text: str) -> Check:
    """A check that passed."""
    return Check(name, CheckStatus.OK, text, None)


def warned(name: str, text: str, remedy: str) -> Check:
    """A check that passed, with something that an operator should look at."""
    return Check(name, CheckStatus.WARNING, text, remedy)


def failed(name: str, text: str, remedy: str) -> Check:
    """A check that failed."""
    return Check(name, CheckStatus.FAILED, text, remedy)
