"""`python -m app.appliance.supervision.watchdog_guard COMMAND ...` runs COMMAND and ends with it, or when it hangs.

The watchdog replaces programs that hang; this process replaces the watchdog, which writes to
`WATCHDOG_FD` on each cycle. Keep imports minimal: nothing restarts this process until the child runs. Both die with
supervisord.
"""

import os
import select
import signal
import sys
from contextlib import suppress

from app.appliance.supervision.hang_detector import PAUSED, SILENT
from app.appliance.supervision.parent_death import terminate_with_parent

WATCHDOG_FD = 3  # the descriptor a watched program writes to, without blocking: what it can't take is no loss


def main() -> None:
    """Runs the command that follows, and ends with one line that says why."""
    terminate_with_parent()
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    child = os.fork()
    if child == 0:
        _become(sys.argv[1:], writing)
    os.close(writing)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        sys.exit(f"notifymux: the keeper {_watch(reading)}, and is started again")
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _become(command: list[str], alive: int) -> None:
    terminate_with_parent(signal.SIGKILL)
    if alive == WATCHDOG_FD:
        os.set_inheritable(alive, True)
    else:
        os.dup2(alive, WATCHDOG_FD)
    os.execvp(command[0], command)  # noqa: S606 - supervisord.conf's words, and no shell


def _watch(alive: int) -> str:
    """Waits until the other end is silent or closed, and says which; silent also after a pause of both."""
    while select.select([alive], [], [], SILENT)[0] or select.select([alive], [], [], PAUSED)[0]:
        if not os.read(alive, 1024):
            return "ended"
    return "was frozen"


if __name__ == "__main__":
    main()
