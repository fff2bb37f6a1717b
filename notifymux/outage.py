"""Waiting out a server that is away: capped, jittered delays, and one log line per change."""

import logging

from redis.backoff import EqualJitterBackoff

_BASE = 0.1  # seconds; the first delay is about twice that
_DOUBLINGS = 10  # past these the delay is at its cap


class Outage:
    """One server's being away: how long to wait before the next try, and what has been said of it.

    Args:
        server: how log lines call the server.
        logger: where they go.
        cap: the longest delay, in seconds.
    """

    def __init__(self, server: str, logger: logging.Logger, cap: float = 5.0) -> None:
        self._server = server
        self._logger = logger
        self._backoff = EqualJitterBackoff(cap=cap, base=_BASE)
        self._cap = cap
        self._failures = 0
        self.recoveries = 0  # outages that ended
        self._said: list[str] = []  # in this outage

    @property
    def reason(self) -> str | None:
        """Why the server is away, None while it isn't."""
        return self._said[-1] if self._said else None

    def failed(self, error: BaseException | str) -> float:
        """Notes a failed try and returns the seconds to wait before the next."""
        self._failures += 1
        delay: float = self._backoff.compute(min(self._failures, _DOUBLINGS))
        if any(word in str(error) for word in ("FATAL", "read-only", "standby", "timeline", "pooler")):
            delay = min(delay, 1.0)
        said = one_line(error)
        if said not in self._said:
            self._logger.warning("%s is away: %s; trying for ever, at most %g s apart", self._server, said, self._cap)
            self._said = [*self._said[-9:], said]
        return delay

    def over(self) -> None:
        """Notes that the server answered."""
        if self._said:
            self.recoveries += 1
            self._logger.info("%s is back after %d failed tries", self._server, self._failures)
        self._failures, self._said = 0, []


def one_line(error: BaseException | str) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
