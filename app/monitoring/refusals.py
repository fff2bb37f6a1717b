"""What strangers are refused for: each is counted, and the log has one line a minute for each reason."""

import logging
from collections import Counter
from enum import StrEnum

from app.core.log_throttle import LogThrottle


class Cause(StrEnum):
    """Why a connection or a request is refused; a label of the metric."""

    ORIGIN = "origin"  # a page of another site
    TOKEN = "token"  # noqa: S105 - none is shown, or one that is invalid, expired or not an operator's
    MATCH = "match"  # the token is for other matches, or authorize.sql says no
    UNCHECKED = "unchecked"  # PostgreSQL can't be asked whether the client may have the match
    FULL = "full"  # no room is left
    DRAINING = "draining"  # this worker ends
    IDLE = "idle"  # too many connections serve no client
    REQUEST = "request"  # it is not HTTP, or its head is too large
    HANDSHAKE = "handshake"  # a WebSocket's is not valid
    FRAME = "frame"  # a WebSocket's client breaks the protocol or sends too much


class Refusals:
    """Counts refusals and logs them."""

    def __init__(self) -> None:
        self.counts = Counter[Cause]()
        self._log = LogThrottle(logging.getLogger(__name__))

    def add(self, cause: Cause, reason: str, details: str = "") -> None:
        """Count a refusal.

        Args:
            cause: its cause.
            reason: for the log; one of a few texts, each of which is logged once a minute.
            details: for the log; may come from anybody.
        """
        self.counts[cause] += 1
        self._log(reason, "refused: %s%s", reason, details and f": {details}")


# This process's, as a logger is: uvicorn makes the objects that refuse what is no request.
refusals = Refusals()
