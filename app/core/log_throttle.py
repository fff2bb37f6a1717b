"""One line of the log for each cause and minute, of what strangers and servers can cause as often as they like."""

import logging
import time
from collections.abc import Callable

from notifymux.printable import printable

SECONDS = 60.0  # between two lines of one cause
MAX_CAUSES = 100
MAX_CHARACTERS = 500  # of a line
_OTHER = "other causes"


class LogThrottle:
    """Logs what happens first at once, and counts what follows for a minute; the next line of that cause has the count.

    If there are too many causes in one minute, the rest of them count as one. A line is bounded, and control characters
    in it are escaped, so that its parts may come from anybody.

    Args:
        logger: writes the lines.
        level: of the lines.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self, logger: logging.Logger, level: int = logging.WARNING, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger, self._level, self._clock = logger, level, clock
        self._causes: dict[str, _Cause] = {}

    def __call__(self, cause: str, message: str, *arguments: object) -> None:
        """Log `message % arguments`, unless a line of this cause was logged within the last minute."""
        now = self._clock()
        known = self._causes.get(cause) or self._add(cause, now)
        waited = now - known.logged_at
        if waited < SECONDS:
            known.held_back += 1
            return
        more = f" (and {known.held_back} more in {waited:.0f} s)" if known.held_back else ""
        known.logged_at, known.held_back = now, 0
        self._logger.log(self._level, "%s%s", escaped(message % arguments if arguments else message), more)

    def _add(self, cause: str, now: float) -> "_Cause":
        if len(self._causes) >= MAX_CAUSES - 1:  # the last one is `_OTHER`
            # Of a cause that does not come back, the number that was held back is never logged.
            self._causes = {name: known for name, known in self._causes.items() if now - known.logged_at < SECONDS}
            if len(self._causes) >= MAX_CAUSES - 1:
                cause = _OTHER
        return self._causes.setdefault(cause, _Cause())


class _Cause:
    __slots__ = ("held_back", "logged_at")

    def __init__(self) -> None:
        self.logged_at, self.held_back = float("-inf"), 0


def escaped(text: str) -> str:
    """Return text on one line of bounded length: what a terminal would not print as it is, is escaped."""
    return printable(text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…")
