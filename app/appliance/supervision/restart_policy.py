"""When a program that died is started again. No clock: times are seconds on any monotonic one."""

LONGEST = 60.0  # seconds between two starts of a program that keeps dying
STABLE = 60.0  # seconds after which a death is the first again


class RestartPolicy:
    """Starts at once what dies for the first time; what keeps dying, 1, 2, 4 … and at last 60 s after its last start.

    So a program is never given up, and never started more than once a minute for long. What an operator stopped is
    left alone.
    """

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._deaths: dict[str, int] = {}  # in a row
        self._due: dict[str, float] = {}

    def started(self, program: str, now: float) -> None:
        """Notes a start, whoever asked for it."""
        self._started[program] = now
        self._due.pop(program, None)

    def stopped(self, program: str) -> None:
        """Notes that an operator stopped it."""
        self._due.pop(program, None)
        self._deaths.pop(program, None)

    def died(self, program: str, now: float) -> float:
        """Notes a death; the seconds until it is to be started again."""
        started = self._started.get(program, now)
        deaths = 1 if now - started >= STABLE else self._deaths.get(program, 0) + 1
        self._deaths[program] = deaths
        interval = min(LONGEST, 2.0 ** min(deaths - 2, 10)) if deaths > 1 else 0.0
        self._due[program] = max(now, started + interval)
        return self._due[program] - now

    def deaths(self, program: str) -> int:
        """How often it died in a row."""
        return self._deaths.get(program, 0)

    def take_due(self, now: float) -> list[str]:
        """The programs that are to be started now, each told once."""
        due = [program for program, at in self._due.items() if at <= now]
        for program in due:
            del self._due[program]
        return due
