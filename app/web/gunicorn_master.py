"""gunicorn's master: it kills no worker that was frozen together with it, and ends at once when it is told so twice.

A machine that was suspended or migrated freezes all processes at once. Whichever goes on first finds all others silent.
"""

import signal
import time
from collections.abc import Callable
from typing import Any

_PAUSE_SECONDS = 5.0  # the master checks its workers once a second; after so long, it was frozen itself


def spare_workers_after_a_pause(server: Any) -> None:
    """Have gunicorn's arbiter wait for a whole `timeout` after a pause of its own before it kills a silent worker.

    `murder_workers`, which this wraps, is an undocumented method of gunicorn 27's `Arbiter`, called in each cycle.
    """
    grace = PauseGrace(server.timeout, time.monotonic())
    kill_silent_workers: Callable[[], None] = server.murder_workers

    def murder_workers() -> None:
        if grace.may_judge(time.monotonic()):
            kill_silent_workers()

    server.murder_workers = murder_workers


def end_at_once_on_the_second_sigterm(server: Any) -> None:
    """Have gunicorn's arbiter take a second SIGTERM for SIGQUIT, which has workers end their drain.

    `signal`, an undocumented method of gunicorn 27's `Arbiter`, handles all its signals.
    """
    seen: list[int] = []

    def on_sigterm(number: int, frame: object) -> None:
        server.signal(signal.SIGQUIT if seen else number, frame)
        seen.append(number)

    signal.signal(signal.SIGTERM, on_sigterm)


class PauseGrace:
    """Decides whether others may be judged by their silence. No clock: times are seconds on any monotonic one.

    Args:
        timeout: the silence for which others are judged, in seconds.
        now: the time.
    """

    def __init__(self, timeout: float, now: float) -> None:
        self._timeout, self._pause = timeout, min(_PAUSE_SECONDS, timeout / 2 + 1)
        self._checked_at = now
        self._grace_until: float | None = None

    def may_judge(self, now: float) -> bool:
        """Return whether the last pause between two calls ended more than `timeout` ago."""
        if now - self._checked_at > self._pause:
            self._grace_until = now + self._timeout
        self._checked_at = now
        return self._grace_until is None or now > self._grace_until
