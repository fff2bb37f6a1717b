"""A timeout that runs only while Redis answers."""

TAKEOVER_TIMEOUT_SECONDS = 3.0  # longer than a Redis timeout plus a standby's delay
POLL_SECONDS = 0.25  # between two checks of a state that should change


class ProgressTimeout:
    """A timeout that counts only time in which Redis answered (rule 5): while Redis is away, no listener can act."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._elapsed = 0.0
        self._last_tick: float | None = None

    def tick(self, now: float) -> bool:
        """Record that Redis answered; return whether the timeout has expired."""
        if self._last_tick is not None:
            # While a process is frozen it gets no answers, so a long interval counts as two polls at most.
            self._elapsed += min(now - self._last_tick, 2 * POLL_SECONDS)
        self._last_tick = now
        return self._elapsed >= self._seconds

    def pause(self) -> None:
        """Record that Redis did not answer: the time until the next tick does not count."""
        self._last_tick = None

    def reset(self) -> None:
        """Start over."""
        self._elapsed = 0.0

    def restart(self) -> None:
        """Start over at the next tick."""
        self._elapsed, self._last_tick = 0.0, None
