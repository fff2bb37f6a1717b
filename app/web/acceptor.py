"""Accepts connections on a listening socket that all workers share, so that they all have as many."""

import asyncio
import logging
import socket
from collections.abc import Callable

from app.core.log_throttle import LogThrottle
from app.core.tasks import start_task
from app.web.accept_balance import patience_ms, room
from app.web.worker_loads import WorkerLoad

_RETRY_SECONDS = 0.1  # where other workers are to take newcomers: after an error, for one of a lack of descriptors

_log = LogThrottle(logging.getLogger(__name__))


class Acceptor:
    """Takes newcomers when it is this worker's turn. uvloop's own server takes all that wait, whenever it wakes up.

    Args:
        listener: the listening socket, which does not block.
        protocol: returns the protocol of a new connection.
        load: of this worker. It counts a connection from here on; the protocol removes it.
    """

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], load: WorkerLoad) -> None:
        self._listener, self._protocol, self._load = listener, protocol, load
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._leaves_to_others = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Take newcomers from now on."""
        self._loop.add_reader(self._listener, self._on_newcomer)

    def leave_to_others(self) -> None:
        """Take newcomers only while no other worker does: then somebody has to turn them away."""
        self._leaves_to_others = True

    def close(self) -> None:
        """Take no more newcomers, and close the listening socket, unless that was done."""
        if self._listener.fileno() < 0:
            return
        self._loop.remove_reader(self._listener)
        if self._timer is not None:
            self._timer.cancel()
        self._listener.close()

    def _on_newcomer(self) -> None:
        """Called by the loop for as long as a newcomer waits."""
        if self._leaves_to_others and self._load.others_serve:
            self._look_again_after(_RETRY_SECONDS, self.start)
        elif wait_ms := patience_ms(self._load.own, self._load.others):
            self._look_again_after(wait_ms / 1000, self._take_what_waits)
        else:
            self._accept()

    def _take_what_waits(self) -> None:
        self.start()
        self._accept()

    def _look_again_after(self, seconds: float, look: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(seconds, look)

    def _accept(self) -> None:
        for _ in range(room(self._load.own, self._load.others)):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                _log("accept", "no connection can be accepted: %s", error)
                self._look_again_after(_RETRY_SECONDS, self.start)
                return
            self._load.add()
            connection.setblocking(False)
            task = start_task(self._serve(connection), "a bug kept a connection from being served")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        await self._loop.connect_accepted_socket(self._protocol, connection)
