"""A program's heartbeat for the watchdog: a file whose modification time it updates in each turn of its loop."""

import os
import time
from pathlib import Path

from app.core.settings_sources import RUN_DIR

_INTERVAL_SECONDS = 1.0


def liveness_path(program: str) -> Path:
    """Return the path of a program's file."""
    return RUN_DIR / "pulse" / program


class LivenessFile:
    """One program's file; without supervisord, which means without a watchdog, it does nothing.

    Args:
        program: supervisord's name for the program.
    """

    def __init__(self, program: str) -> None:
        self._path = liveness_path(program) if "SUPERVISOR_ENABLED" in os.environ else None
        self._due = 0.0

    def touch(self) -> None:
        """Update the file, at most once a second."""
        now = time.monotonic()
        if self._path is None or now < self._due:
            return
        self._due = now + _INTERVAL_SECONDS
        try:
            self._path.touch()
            os.utime(self._path)
        except OSError:
            self._path = None  # it can't be written: the watchdog does not check programs without a file
