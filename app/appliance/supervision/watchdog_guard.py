"""Runs the watchdog in a child process, and ends when that ends or hangs, so that supervisord starts both again.

The watchdog writes to a pipe in each cycle; in return it checks this process like any other program.
"""

import os
import select
import signal
import sys
from contextlib import suppress

from app.appliance.supervision.hang_detector import HANG_TIMEOUT_SECONDS, PAUSE_SECONDS
from app.appliance.supervision.parent_death import terminate_with_parent


def main() -> None:
    """Guard the watchdog, and end with one line that says why."""
    terminate_with_parent()
    reading, writing = os.pipe2(os.O_NONBLOCK)
    guard, child = os.getpid(), os.fork()
    if child == 0:
        terminate_with_parent(guard, signal.SIGKILL)
        from app.appliance.supervision import watchdog  # noqa: PLC0415 - the guard itself does not need its 10 MB

        watchdog.run(writing)
    os.close(writing)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        sys.exit(f"notifymux: the keeper {_wait(reading)}, and is started again")
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _wait(reading: int) -> str:
    """Wait until the watchdog has ended or has not written for too long; return which.

    The second, shorter wait gives it time to write after both were paused.
    """
    while any(select.select([reading], [], [], seconds)[0] for seconds in (HANG_TIMEOUT_SECONDS, PAUSE_SECONDS)):
        if not os.read(reading, 1024):
            return "ended"
    return "was frozen"
