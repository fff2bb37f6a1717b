"""gunicorn's worker: uvicorn with uvloop and the sans-I/O WebSocket protocol."""

import ctypes
import gc
import logging
import os
import resource
import signal
from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

from app.web.uvicorn_protocols import DRAIN, HttpProtocol, WebSocketProtocol

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GARBAGE = 20_000  # objects that come before the collector looks; with Python's 700 it takes half of a storm's time
MAX_MESSAGE = 4096  # bytes; a client has nothing to say but pong


class Worker(UvicornWorker):  # type: ignore[misc]
    """Serves the application of `app.main`."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "factory": True,
        "loop": "uvloop",
        "http": HttpProtocol,
        "ws": WebSocketProtocol,
        "ws_max_size": MAX_MESSAGE,
        "ws_per_message_deflate": False,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": int(DRAIN) + 1,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config.root_path = self.cfg.root_path
        # Its info lines name paths with their queries, where tokens may stand; its warnings are clients' mistakes.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def collect_seldom() -> None:
    """Has the garbage collector look less often: thousands of clients are no garbage, nor what is loaded by now."""
    gc.freeze()
    gc.set_threshold(_GARBAGE)


def allow_open_files(count: int) -> None:
    """Raises this process's limit of open files as far as it may, if it is below `count`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (min(count, hard) if hard != resource.RLIM_INFINITY else count, hard)
        )


def end_with_parent(parent: int) -> None:
    """Has the kernel send SIGTERM when the parent dies, so that no orphan holds the port (Linux only).

    Args:
        parent: the parent's process id, as it was before the fork.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
