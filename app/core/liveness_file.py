"""A program's sign of life: a file whose time it renews while its loop goes round, for the appliance's keeper."""

import os
import time
from pathlib import Path

from app.core.config import RUN_DIR

_EVERY = 1.0  # seconds


def liveness_path(program: str) -> Path:
    """Where a program's sign of life is."""
    return RUN_DIR / "pulse" / program


class LivenessFile:
    """Shows that a program is alive; nothing where no supervisord runs it.

    Args:
        program: supervisord's name for it.
    """

    def __init__(self, program: str) -> None:
        self._path = liveness_path(program) if "SUPERVISOR_ENABLED" in os.environ else None
        self._due = 0.0

    def beat(self) -> None:
        """Renews the sign, at most once a second. A disk that is full is the keeper's business, not this program's."""
        now = time.monotonic()
        if self._path is None or now < self._due:
            return
        self._due = now + _EVERY
        try:
            self._path.touch()
            os.utime(self._path)
        except OSError:
            self._path = None  # not ours to write: the keeper watches only who shows signs
