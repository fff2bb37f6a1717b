"""How far a replication slot may forget: up to what has been in Redis for a while."""

from collections import deque

_STEP_SECONDS = 0.1  # between two positions that are remembered, so that there are few


class ConfirmationTrail:
    """The commits whose events are in Redis, each with the time since when.

    A Redis that fails over, or comes back from its disk, may have lost the last moments. They are in the slot still,
    if what is confirmed trails behind.

    Args:
        seconds: the trail. There are at most ten positions for each second.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._positions: deque[tuple[float, int]] = deque()
        self.confirmable = 0  # the LSN up to which the slot may forget; 0 for none

    def appended(self, commit: int, asked_at: float, now: float) -> None:
        """Record Redis's answer to an append that left all events up to a commit in it.

        Nothing but such an answer shows that Redis still has what it had: it may have fallen back since the last one.

        Args:
            commit: the LSN.
            asked_at: when Redis was asked: what it took before, it has had until then.
            now: when the answer came: what it took now, it has had since then at the latest.
        """
        while self._positions and asked_at - self._positions[0][0] >= self._seconds:
            self.confirmable = max(self.confirmable, self._positions.popleft()[1])
        if not self._positions or now - self._positions[-1][0] >= _STEP_SECONDS:
            self._positions.append((now, commit))

    def lost(self) -> None:
        """Record that Redis has lost events: what was in it before proves nothing any more."""
        self._positions.clear()
