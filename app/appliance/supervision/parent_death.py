"""`python -m app.appliance.supervision.parent_death COMMAND ...` becomes COMMAND, tied to supervisord's life.

supervisord may die without stopping anything: by kill -9, or when the terminal it logs to is closed. Then nothing is
left running, and nothing is there twice after the next start.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def terminate_with_parent(ending: signal.Signals = signal.SIGTERM) -> None:
    """From now on, and beyond exec, the kernel sends this process `ending` when its parent dies. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ending)


if __name__ == "__main__":
    terminate_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - supervisord.conf's words, and no shell
