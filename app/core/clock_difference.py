"""Clocks that differ: how far a process's is ahead of PostgreSQL's, and whether a measured latency is one.

Events do not depend on clocks. Latencies that are measured by two of them do.
"""

import logging
from collections import deque

from app.core.canary import Canary

CLOCK_TOLERANCE_SECONDS = 5.0  # by which clocks may differ before anybody is told
_SAMPLES = 30


class ClockDifference:
    """How far this process's clock is ahead of PostgreSQL's, by canaries that this process sent to itself.

    Args:
        logger: receives a line when the clocks begin to differ, and when they no longer do.
        who: this process in that line.
    """

    def __init__(self, logger: logging.Logger, who: str) -> None:
        self._logger, self._who = logger, who
        self.seconds: float | None = None  # negative if this process's clock is behind; None if it is not known

    def observe(self, canary: Canary, received: float) -> None:
        """Compare the clocks: PostgreSQL read its own between sending and receiving, however long that took.

        Args:
            canary: with `sent` by this process's clock and `clock` by PostgreSQL's.
            received: when it came back, by this process's clock, Unix seconds.
        """
        if canary.sent is None or canary.clock is None:
            return
        behind, ahead = canary.clock - received, canary.sent - canary.clock
        before, self.seconds = self.seconds, ahead if ahead > 0 else -behind if behind > 0 else 0.0
        if is_off(before) != is_off(self.seconds):
            self._log(self.seconds)

    def _log(self, seconds: float) -> None:
        if is_off(seconds):
            text = "%s's clock is %s PostgreSQL's: correct the wrong one; events do not need it, latencies do"
            self._logger.warning(text, self._who, difference(seconds))
        else:
            self._logger.info("%s's clock agrees with PostgreSQL's again", self._who)


class PlausibleLatency:
    """Tells latencies from the differences of two clocks.

    Where the clocks agree, a canary that is delayed for long follows some that were not. A latency that is beyond the
    tolerance in each of the last canaries is a difference of the clocks, and so is one below zero.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_SAMPLES)

    def check(self, seconds: float) -> float | None:
        """Return a latency that was measured, at least 0; None if it is not plausible."""
        self._recent.append(seconds)
        return None if is_off(min(self._recent)) else max(0.0, seconds)


def is_off(seconds: float | None) -> bool:
    """Whether a difference of clocks is beyond the tolerance."""
    return seconds is not None and abs(seconds) > CLOCK_TOLERANCE_SECONDS


def difference(seconds: float) -> str:
    """Return a difference in words."""
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"
