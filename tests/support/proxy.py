"""A TCP proxy on loopback that can drop, refuse, throttle and stall connections."""

import select
import socket
import threading
import time
from typing import Self


class Proxy:
    """Forwards connections from `port` to the port of a server on loopback."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._stalled_pairs: list[tuple[socket.socket, socket.socket]] = []
        self._stalled = self._closed = False
        self._refusing = False
        self._bytes_per_second: float | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stall(self) -> None:
        """Forward nothing more, in established connections and new ones. No connection is closed."""
        self._stalled = True

    def throttle(self, bytes_per_second: float) -> None:
        """Limit the throughput of all connections together."""
        self._bytes_per_second = bytes_per_second

    def stall_established(self) -> None:
        """Forward nothing more in established connections. New connections work."""
        with self._lock:
            self._stalled_pairs, self._pairs = [*self._stalled_pairs, *self._pairs], []

    def resume(self) -> None:
        """Forward everything again, including the data held back, and accept connections."""
        self._stalled = self._refusing = False
        self._bytes_per_second = None

    def cut(self) -> None:
        """Drop every connection and refuse new ones until `resume`."""
        self._refusing = True
        self.drop()

    def redirect_to(self, server_port: int) -> None:
        """Drop every connection, and forward new ones to another server."""
        self._server_port = server_port
        self.drop()

    def drop(self) -> None:
        """Drop every established connection."""
        with self._lock:
            pairs, self._pairs, self._stalled_pairs = [*self._pairs, *self._stalled_pairs], [], []
        for pair in pairs:
            for end in pair:
                end.close()

    def close(self) -> None:
        """Drop every connection and stop listening."""
        self._closed = True
        self._thread.join(5)
        self.drop()
        self._listening.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closed:
            with self._lock:
                pairs = list(self._pairs)
            ends = {} if self._stalled else {a: b for pair in pairs for a, b in (pair, pair[::-1]) if a.fileno() >= 0}
            try:
                readable, _, _ = select.select([self._listening, *ends], [], [], 0.02)
            except (OSError, ValueError):
                continue  # a connection was dropped in the meantime
            for end in readable:
                if end is self._listening:
                    self._accept()
                else:
                    self._pass(end, ends[end])

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        if self._refusing:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._server_port), 2)
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._pairs.append((client, server))

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        rate = self._bytes_per_second
        try:
            data = source.recv(int(rate / 50) if rate else 1 << 16)
            if data:
                target.sendall(data)
                time.sleep(len(data) / rate if rate else 0)
                return
        except OSError:
            pass
        with self._lock:
            self._pairs = [pair for pair in self._pairs if source not in pair]
        source.close()
        target.close()
