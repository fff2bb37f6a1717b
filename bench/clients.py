"""WebSocket clients that cost next to nothing: raw sockets whose frames are looked at after the measurement."""

import re
import resource
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from bench.events import SERIAL, mark

_REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_TEXT, _CLOSE, _PING = 1, 8, 9
_PONG_FRAME = b"\x81\x8f\0\0\0\0" + b'{"type":"pong"}'
_READ = 1 << 18
_TAIL = 2048  # bytes that surely hold the last event
_WORKER = re.compile(rb"\r\nx-worker: *(\w+)", re.IGNORECASE)


class Arrival(NamedTuple):
    """An event as a client got it."""

    at: float  # Unix seconds
    serial: int


class Client:
    """One connection.

    Args:
        port: on this machine.
        path: of the WebSocket.
    """

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_REQUEST.format(path=path, port=port).encode())
        self.chunks: list[tuple[float, bytes]] = []
        self.closed: int | None = None  # the close frame's code, or 0 if there was none
        self.worker = b""
        self._rest = b""

    def open(self) -> "Client":
        """Waits for the handshake's answer.

        Raises:
            ConnectionError: it was refused.
        """
        head, end = b"", -1
        while (end := head.find(b"\r\n\r\n")) < 0:
            chunk = self.socket.recv(_READ)
            if not chunk:
                raise ConnectionError(f"no handshake: {head!r}")
            head += chunk
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"no WebSocket: {head[:end].decode(errors='replace')}")
        if found := _WORKER.search(head[:end]):
            self.worker = found[1]
        if head[end + 4 :]:
            self.chunks.append((time.time(), head[end + 4 :]))
        self.socket.setblocking(False)
        return self

    def arrivals(self) -> list[Arrival]:
        """The events that were read since the last call, in order; answers the pings that were among them."""
        found: list[Arrival] = []
        for at, chunk in self.chunks:
            frames, self._rest = split(self._rest + chunk)
            for opcode, payload in frames:
                if opcode == _TEXT and (serial := SERIAL.search(payload)):
                    found.append(Arrival(at, int(serial[1])))
                elif opcode in {_TEXT, _PING, _CLOSE}:
                    self._answer(opcode, payload)
            if not chunk and self.closed is None:
                self.closed = 0
        self.chunks.clear()
        return found

    def _answer(self, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            self.closed = int.from_bytes(payload[:2])
        elif opcode == _PING:
            self.socket.send(bytes([0x8A, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
        elif b'"ping"' in payload:
            self.socket.send(_PONG_FRAME)

    def close(self) -> None:
        """Ends it; with a reset, so that thousands leave no port waiting."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


def split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames in `data`, each as opcode and payload, and what is left."""
    found, at, end = [], 0, len(data)
    while end - at >= 2:
        size, start = data[at + 1], at + 2
        if size > 125:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : start])
        if start + size > end:
            break
        found.append((data[at] & 0xF, data[start : start + size]))
        at = start + size
    return found, data[at:]


class Clients:
    """Some clients that are read together.

    Args:
        clients: all of them open.
    """

    def __init__(self, clients: Sequence[Client]) -> None:
        self.all = list(clients)
        files = {client.socket.fileno(): client for client in clients}
        # Bound once: of thousands of clients, each costs its share of the machine that is measured.
        self._receive = {file: client.socket.recv for file, client in files.items()}
        self._keep = {file: client.chunks.append for file, client in files.items()}
        self._open = set(files)
        self._poll = select.epoll()
        for file in files:
            self._poll.register(file, select.EPOLLIN)

    def read_until(self, serial: int, patience: float, pause: float = 0.0) -> float | None:
        """Reads until every client has got an event; when the last one did, or None after `patience` s of silence.

        With a `pause` (seconds) between two looks, more is read at once, which leaves the machine to what is measured.
        """
        wanted, waiting = mark(serial), set(self._open)
        tails: dict[int, bytes] = {}
        while waiting:
            chunks = self._read(patience)
            if not chunks:
                return None
            for file, chunk in chunks:
                if wanted in chunk[-_TAIL:] or (file in tails and wanted in (tails[file] + chunk)[-_TAIL:]):
                    waiting.discard(file)
                elif not chunk:
                    waiting.discard(file)  # it is lost
                elif file in waiting:
                    tails[file] = chunk[-_TAIL:]
            if pause:
                time.sleep(pause)
        return max(client.chunks[-1][0] for client in self.all if client.chunks)

    def _read(self, patience: float) -> list[tuple[int, bytes]]:
        """Waits for `patience` seconds, and keeps what is there for later; of which client, and what."""
        ready = self._poll.poll(patience, 1 << 10)
        now = time.time()
        found = []
        for file, _ in ready:
            try:
                chunk = self._receive[file](_READ)
            except OSError:
                chunk = b""
            if not chunk:
                self._poll.unregister(file)
                self._open.discard(file)
            self._keep[file]((now, chunk))
            found.append((file, chunk))
        return found

    def pump(self) -> None:
        """Reads what is there, answers pings, and forgets everything."""
        while self._read(0):
            pass
        self.arrivals()

    def arrivals(self) -> list[list[Arrival]]:
        """What each has got since the last call."""
        return [client.arrivals() for client in self.all]

    @property
    def closed(self) -> list[int]:
        """The codes with which clients were closed."""
        return [client.closed for client in self.all if client.closed is not None]

    def forget(self) -> None:
        """Lets go of them, and leaves them open."""
        self._poll.close()

    def close(self) -> None:
        """Ends all."""
        self.forget()
        for client in self.all:
            client.close()


def on_each_worker(port: int, path: Callable[[int], str], workers: int) -> Clients:
    """One client on each worker; `path` makes the n-th client's path."""
    found: dict[bytes, Client] = {}
    for number in range(400):
        client = Client(port, path(number)).open()
        if client.worker in found:
            client.close()
        else:
            found[client.worker] = client
        if len(found) == workers:
            return Clients(list(found.values()))
    raise AssertionError(f"{len(found)} of {workers} workers took a client")


def crowd(port: int, path: Callable[[int], str], numbers: Iterable[int]) -> list[Client]:
    """Clients that connect all at once."""
    coming = [Client(port, path(number)) for number in numbers]
    return [client.open() for client in coming]


def allow_open_files() -> None:
    """Raises this process's limit of open files as far as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
