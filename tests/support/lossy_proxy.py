"""A proxy that loses the answer to one request: the server has carried it out, and whoever asked does not know."""

import socket
from contextlib import suppress

from tests.support.proxy import Proxy


class LossyProxy(Proxy):
    """Passes everything, until `lose_answer_to`."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self._lost_on: bytes | None = None
        self._losing: socket.socket | None = None  # the client that waits for the answer that will be lost
        self.lost = 0

    def lose_answer_to(self, text: bytes) -> None:
        """The next request that contains `text` reaches the server, and its answer nobody, and it is cut then."""
        self._lost_on = text

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        if target is self._losing:
            with suppress(OSError):
                source.recv(1 << 16)
            self._losing = None
            self.lost += 1
            self._close(source, target)
            return
        if self._lost_on:
            data = b""
            with suppress(OSError):
                data = source.recv(1 << 16, socket.MSG_PEEK)
            if self._lost_on in data:
                self._lost_on, self._losing = None, source
        super()._pass(source, target)

    def _close(self, source: socket.socket, target: socket.socket) -> None:
        with self._lock:
            self._pairs = [pair for pair in self._pairs if source not in pair]
        source.close()
        target.close()
