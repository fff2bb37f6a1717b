"""gunicorn's worker: uvicorn with uvloop and the sans-I/O WebSocket protocol."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from app.web.uvicorn_protocols import HttpProtocol, WebSocketProtocol
from app.web.uvicorn_server import BalancedServer
from app.web.worker_loads import WorkerLoads

_GC_THRESHOLD_OBJECTS = 20_000  # with Python's 700, collections take half of the time when thousands reconnect
KEEP_ALIVE_SECONDS = 75  # that a connection may be idle between two requests
MAX_MESSAGE_BYTES = 4096  # of a client, which sends nothing but pings and pongs
STOP_SECONDS = 4  # after a drain, until a worker is killed: it closes what is left and its connections to the servers
_LAST_REQUESTS_SECONDS = 1  # for requests that are still being answered when all clients have left


class Worker(UvicornWorker):  # type: ignore[misc]
    """Serves the application of `app.main`. Before the fork, the master sets `load` to one that all workers see."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": HttpProtocol,
        "ws": WebSocketProtocol,
        "ws_max_size": MAX_MESSAGE_BYTES,
        "ws_per_message_deflate": False,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": _LAST_REQUESTS_SECONDS,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config.root_path = self.cfg.root_path
        # gunicorn's wrappers of sockets hide them from uvloop, which then closes their descriptors before uvicorn does.
        self.sockets: list[socket.socket] = _plain(self.sockets)
        self.load = WorkerLoads(1).claim()
        _log_errors_only(logging.getLogger("uvicorn.error"))

    async def _serve(self) -> None:
        """Called by `run`. Does what the method that it overrides does, with a server of ours."""
        self.config.app = self.wsgi
        server = BalancedServer(self.config, self.load, lambda: os.getppid() != self.ppid)
        # uvicorn-worker's own handler of SIGQUIT sets what only gunicorn's workers read.
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, server.handle_exit, signal.SIGQUIT, None)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


def _plain(listeners: Iterable[Any]) -> list[socket.socket]:
    return [listener.sock for listener in listeners]


def _log_errors_only(logger: logging.Logger) -> None:
    """Have uvicorn's logger use the format of all lines.

    Its info lines have paths with their queries, which may contain tokens. Its warnings are clients' mistakes, which
    the protocols count themselves.
    """
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.ERROR)


def collect_seldom() -> None:
    """Have the garbage collector run less often: most collections would only find the objects of clients that stay."""
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD_OBJECTS)
