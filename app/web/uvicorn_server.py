"""uvicorn's server, with connections spread evenly over the workers, and a drain before it ends."""

import asyncio
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType

from uvicorn import Config, Server

from app.broadcast.drain import Drain
from app.core.tasks import start_task
from app.web.acceptor import Acceptor
from app.web.uvicorn_protocols import LOAD, HttpProtocol
from app.web.worker_loads import WorkerLoad

# The key of the `Drain` in the state that the application's lifespan returns.
DRAIN = "notifymux.drain"


class BalancedServer(Server):
    """Takes connections itself, when it is this worker's turn. When it is to end, it first drains the application.

    Meanwhile it goes on to take connections, unless another worker does: whoever asks for readiness is answered, and
    clients are sent to another pod.

    Args:
        config: uvicorn's.
        load: of this worker.
        is_orphan: returns whether the master has died. Its successor needs the address, so that none is taken then.
    """

    def __init__(self, config: Config, load: WorkerLoad, is_orphan: Callable[[], bool]) -> None:
        super().__init__(config)
        self._load, self._is_orphan = load, is_orphan
        self._acceptors: list[Acceptor] = []
        self._leaves_newcomers = False
        self._draining: asyncio.Task[None] | None = None
        self._is_hurried = False  # by a signal

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn. Starts the application, and then takes connections on listening sockets."""
        await super().startup([])
        protocol = partial(
            HttpProtocol,
            config=self.config,
            server_state=self.server_state,
            app_state={**self.lifespan.state, LOAD: self._load},
            _loop=asyncio.get_running_loop(),
        )
        self._acceptors = [Acceptor(listener, protocol, self._load) for listener in sockets or []]
        self._load.start()
        for acceptor in self._acceptors:
            acceptor.start()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second, until it returns True. Shows that this worker is not frozen.

        A drain takes place within uvicorn's main loop, so that gunicorn hears of this worker meanwhile.
        """
        self._load.beat()
        if not await super().on_tick(counter):
            return False
        drain: Drain = self.lifespan.state[DRAIN]
        if not self._leaves_newcomers:
            self._leaves_newcomers = True
            self._leave_newcomers_to_others()
            return False  # until the next tick, who was accepted a moment ago is let in
        if self._draining is None:
            self._draining = start_task(drain.run(), "a bug ended the drain")
        if self._is_hurried:
            drain.hurry()
        if self._is_orphan():
            self._close_listeners()
        return self._draining.done()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for a signal that ends this worker. SIGQUIT, or SIGINT for the second time, ends the drain at once."""
        self._is_hurried |= sig == signal.SIGQUIT or (sig == signal.SIGINT and self.should_exit)
        super().handle_exit(signal.SIGTERM if sig == signal.SIGQUIT else sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn when the main loop has ended. Takes no more connections."""
        self._close_listeners()
        await super().shutdown(sockets)

    def _leave_newcomers_to_others(self) -> None:
        self._load.stop()
        for acceptor in self._acceptors:
            acceptor.leave_to_others()

    def _close_listeners(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
