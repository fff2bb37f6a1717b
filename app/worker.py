"""gunicorn's worker: uvicorn with uvloop and the sans-I/O WebSocket protocol."""

import ctypes
import logging
import os
import signal
from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

from app.protocol import Protocol

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
MAX_MESSAGE = 4096  # bytes; a client has nothing to say but pong


class Worker(UvicornWorker):  # type: ignore[misc]
    """Serves the application of `app.main`."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "factory": True,
        "loop": "uvloop",
        "http": "httptools",
        "ws": Protocol,
        "ws_max_size": MAX_MESSAGE,
        "ws_per_message_deflate": False,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 3,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config.root_path = self.cfg.root_path
        # Its info lines name every path with its query, and a token may stand there.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def end_with_parent(parent: int) -> None:
    """Has the kernel send SIGTERM when the parent dies, so that no orphan holds the port (Linux only).

    Args:
        parent: the parent's process id, as it was before the fork.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
