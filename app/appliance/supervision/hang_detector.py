"""Decides which programs hang. No clock and no files: times are seconds on any monotonic clock."""

from collections.abc import Hashable, Mapping

HANG_TIMEOUT_SECONDS = 20.0
PAUSE_SECONDS = 5.0  # after so long between two checks, the checking process itself was paused, perhaps with all others


class HangDetector:
    """Finds the programs whose heartbeat has stopped changing."""

    def __init__(self) -> None:
        self._heartbeats: dict[str, tuple[Hashable, float]] = {}  # each program's last one, and the time of its change
        self._checked_at: float | None = None

    def check(self, heartbeats: Mapping[str, Hashable], now: float) -> list[str]:
        """Return the programs whose heartbeat has not changed for `HANG_TIMEOUT_SECONDS`.

        A program that is returned, or that is checked for the first time, gets the whole timeout again; so does
        every program after a pause of the checking process.

        Args:
            heartbeats: for each program to check, a value that changes as long as the program works.
            now: the time.
        """
        paused = self._checked_at is not None and now - self._checked_at > PAUSE_SECONDS
        self._checked_at = now
        before = {} if paused else self._heartbeats
        self._heartbeats = {}
        hanging = []
        for program, heartbeat in heartbeats.items():
            last, since = before.get(program, (None, now))
            if last != heartbeat:
                since = now
            if now - since >= HANG_TIMEOUT_SECONDS:
                hanging.append(program)
                since = now
            self._heartbeats[program] = heartbeat, since
        return hanging
