"""A bound on waiting for somebody else."""

TAKEOVER_TIMEOUT_SECONDS = 3.0  # seconds: longer than a Redis timeout plus a standby's delay
POLL_SECONDS = 0.25  # seconds between looks at what isn't as it should be


class ProgressTimeout:
    """A bound that counts only time in which Redis answered (rule 5): while it is away, nobody could have acted."""

    def __init__(self, bound: float) -> None:
        self._bound = bound
        self._spent = 0.0
        self._last: float | None = None

    def answered(self, now: float) -> bool:
        """Notes that Redis answered; whether the bound is reached."""
        if self._last is not None:
            # A frozen process was not being answered while it slept.
            self._spent += min(now - self._last, 2 * POLL_SECONDS)
        self._last = now
        return self._spent >= self._bound

    def interrupted(self) -> None:
        """Notes that Redis did not answer."""
        self._last = None

    def reset(self) -> None:
        """Starts over."""
        self._spent = 0.0
