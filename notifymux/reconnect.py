"""Reconnecting to a server: capped exponential delays with jitter, and one log line per change."""

import logging
import re

from redis.backoff import EqualJitterBackoff

from notifymux.printable import printable

_BASE_SECONDS = 0.1  # the first delay is at most twice this
_MAX_CHARACTERS = 1000  # of an error's line
_MAX_DOUBLINGS = 10  # after these the delay is at its cap; more would only overflow
# What Redis and redis-py quote in an error. Commands have secrets, scripts and events as their arguments.
_QUOTATIONS = re.compile(
    r"^Command # \d+ \(.*\) of pipeline caused error: |,? with args beginning with:.*|\.? script: \w+, on @\w+:\d+\.?$"
)


class ReconnectState:
    """The failed attempts to reach one server since it last answered.

    Args:
        server: the server's name in log lines.
        logger: receives the log lines.
        cap: the longest delay between two attempts, in seconds.
    """

    def __init__(self, server: str, logger: logging.Logger, cap: float = 5.0) -> None:
        self._server = server
        self._logger = logger
        self._backoff = EqualJitterBackoff(cap=cap, base=_BASE_SECONDS)
        self._cap = cap
        self._failures = 0
        self._logged: list[str] = []  # the errors of this outage, each once
        self._reason: str | None = None
        self.reconnects = 0  # outages that ended

    @property
    def reason(self) -> str | None:
        """The last error of this outage; None while the server answers."""
        return self._reason

    def failed(self, error: BaseException | str, cap: float | None = None) -> float:
        """Record a failed attempt and return the seconds to wait before the next one, at most `cap`.

        An error is logged only if it is a new one in this outage.
        """
        self._failures += 1
        delay: float = self._backoff.compute(min(self._failures, _MAX_DOUBLINGS))
        delay = delay if cap is None else min(delay, cap)
        self._reason = reason = one_line(error)
        if reason not in self._logged:
            self._logger.warning("%s is away: %s; trying for ever, at most %g s apart", self._server, reason, self._cap)
            self._logged = [*self._logged[-9:], reason]
        return delay

    def recovered(self) -> None:
        """Record that the server answered. This ends the outage, if there is one, and logs its end."""
        if self._logged:
            self.reconnects += 1
            self._logger.info("%s is back after %d failed tries", self._server, self._failures)
        self.forget()

    def forget(self) -> None:
        """End the outage without a word: whether the server answers is of no interest any more."""
        self._failures, self._logged, self._reason = 0, [], None


def one_line(error: BaseException | str) -> str:
    """Return an error's message on one printable line of bounded length, or its type's name if it has no message.

    A server quotes what it does not understand, and that may come from anybody.
    Redis quotes the arguments of a command that it doesn't know, and redis-py those of one that fails in a pipeline.
    They may be secrets or events, and are cut off, as is the place in a script.
    """
    text = _QUOTATIONS.sub("", " ".join(str(error).split())) or type(error).__name__
    return printable(text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…")
