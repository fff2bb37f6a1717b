"""Decides when a program that exited is started again. No clock: times are seconds on any monotonic one."""

MAX_INTERVAL_SECONDS = 60.0  # between two starts of a program that keeps exiting
STABLE_SECONDS = 60.0  # after running for so long, the next exit counts as the first


class RestartPolicy:
    """Restarts at once after the first exit in a row, and then 1, 2, 4 … and at most 60 s after the last start.

    No program is given up, and in the long run none is started more often than once a minute. A program that an
    operator stopped is not restarted.
    """

    def __init__(self) -> None:
        self._started_at: dict[str, float] = {}
        self._exits: dict[str, int] = {}  # in a row
        self._due_at: dict[str, float] = {}

    def started(self, program: str, now: float) -> None:
        """Record a start, by whomever."""
        self._started_at[program] = now
        self._due_at.pop(program, None)

    def stopped(self, program: str) -> None:
        """Record that an operator stopped the program."""
        self._due_at.pop(program, None)
        self._exits.pop(program, None)

    def exited(self, program: str, now: float) -> float:
        """Record that the program exited; return the seconds until its restart is due."""
        started_at = self._started_at.get(program, now)
        exits = 1 if now - started_at >= STABLE_SECONDS else self.exits(program) + 1
        self._exits[program] = exits
        interval = min(MAX_INTERVAL_SECONDS, 2.0 ** min(exits - 2, 10)) if exits > 1 else 0.0
        self._due_at[program] = max(now, started_at + interval)
        return self._due_at[program] - now

    def exits(self, program: str) -> int:
        """Return how often the program exited in a row."""
        return self._exits.get(program, 0)

    def is_due(self, program: str) -> bool:
        """Return whether a restart of the program is due, now or later."""
        return program in self._due_at

    def take_due(self, now: float) -> list[str]:
        """Return the programs to restart now, each once."""
        due = [program for program, at in self._due_at.items() if at <= now]
        for program in due:
            del self._due_at[program]
        return due
