"""uvicorn's server, with connections spread evenly over the workers."""

import asyncio
import socket
from functools import partial

from uvicorn import Config, Server

from app.web.acceptor import Acceptor
from app.web.uvicorn_protocols import LOAD, HttpProtocol
from app.web.worker_loads import WorkerLoad


class BalancedServer(Server):
    """Takes connections itself, when it is this worker's turn.

    Args:
        config: uvicorn's.
        load: of this worker.
    """

    def __init__(self, config: Config, load: WorkerLoad) -> None:
        super().__init__(config)
        self._load = load
        self._acceptors: list[Acceptor] = []

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
        """Called by uvicorn ten times a second. Shows that this worker is not frozen."""
        self._load.beat()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn when it ends. Takes no more connections."""
        self._load.stop()
        for acceptor in self._acceptors:
            acceptor.stop()
        await super().shutdown(sockets)
