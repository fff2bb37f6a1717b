"""One server at a time on a data folder, however the one before it died."""

import fcntl
import os
import time
from pathlib import Path

from app.appliance import ApplianceError


def acquire(folder: Path, seconds: float) -> int:
    """Waits until no server uses `folder` any more, and holds it.

    What is held is a lock that children inherit: it is a killed server's until the last of them is gone, which no
    pid file can tell.

    Returns:
        The lock's file descriptor.

    Raises:
        ApplianceError: the folder was still in use after `seconds`.
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
    """`acquire` for the server that this process is about to become."""
    os.set_inheritable(acquire(folder, seconds=60), True)
