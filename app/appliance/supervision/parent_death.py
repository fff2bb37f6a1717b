"""`python -m app.appliance.supervision.parent_death COMMAND ...` becomes COMMAND, which ends when its parent dies.

supervisord may die without stopping its programs: by kill -9, or when the terminal that it logs to is closed. Without
this they would go on, and the next start would run each of them twice.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def terminate_with_parent(parent: int | None = None, ending: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process `ending` when its parent dies, also after an exec. Linux only.

    Args:
        parent: in a forked process, its parent's process id; `ending` is sent at once if that one has died already.
        ending: the signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ending)
    if parent not in (None, os.getppid()):
        os.kill(os.getpid(), ending)


if __name__ == "__main__":
    terminate_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - supervisord.conf's words, and no shell
