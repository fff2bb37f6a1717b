"""A lock on a data folder: one server at a time, however the last one ended."""

import fcntl
import os
import time
from pathlib import Path

from app.appliance import ApplianceError


def acquire(folder: Path, seconds: float) -> int:
    """Wait until no server uses `folder`, lock it, and return the lock's file descriptor.

    Child processes inherit the lock, so that a killed server keeps it until the last of its children has ended. A pid
    file can't tell that.

    Raises:
        ApplianceError: the folder is still in use after `seconds`.
    """
    lock = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise ApplianceError(f"{folder} is in use by a server of another start: stop that one first") from None
            time.sleep(0.05)
        else:
            return lock


def acquire_inheritable(folder: Path) -> None:
    """Call `acquire` for the server that this process becomes by exec."""
    os.set_inheritable(acquire(folder, seconds=60), True)
