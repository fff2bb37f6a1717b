"""A rate limit that lets a burst through: a token bucket."""

import time
from collections.abc import Callable


class TokenBucket:
    """Holds up to `size` tokens, and gets `rate` a second. Each request takes one.

    Args:
        size: also how many there are at first.
        rate: tokens a second.
        clock: seconds on a monotonic clock.
    """

    __slots__ = ("_at", "_clock", "_rate", "_size", "_tokens")

    def __init__(self, size: float, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._rate, self._clock = size, rate, clock
        self._tokens, self._at = size, clock()

    def take(self) -> bool:
        """Take a token; return False if there is none."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def charge(self, tokens: float) -> None:
        """Take tokens for work that is done in any case: what is missing comes out of those to come."""
        self._tokens -= tokens
