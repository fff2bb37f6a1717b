"""WebSocket clients with little overhead: raw sockets whose frames are parsed after the measurement."""

import re
import resource
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from bench.events import SERIAL, serial_marker

_REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_TEXT, _CLOSE, _PING = 1, 8, 9
_PONG_FRAME = b"\x81\x8f\0\0\0\0" + b'{"type":"pong"}'
_READ_BYTES = 1 << 18
_LAST_EVENT_BYTES = 2048  # at the end of the data, more than one event has
_WORKER = re.compile(rb"\r\nx-worker: *(\w+)", re.IGNORECASE)


class Arrival(NamedTuple):
    """An event that a client received."""

    at: float  # Unix seconds
    serial: int


class Client:
    """A connection. `open` waits for the handshake.

    Args:
        port: on loopback.
        path: of the WebSocket endpoint.
    """

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_REQUEST.format(path=path, port=port).encode())
        self.chunks: list[tuple[float, bytes]] = []
        self.closed: int | None = None  # the code of the close frame, 0 without a close frame
        self.worker = b""
        self.resyncs = self.loads = 0  # and initial loads
        self._buffer = b""

    def open(self) -> "Client":
        """Wait for the response to the handshake.

        Raises:
            ConnectionError: the server refused the handshake.
        """
        head, end = b"", -1
        while (end := head.find(b"\r\n\r\n")) < 0:
            chunk = self.socket.recv(_READ_BYTES)
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
        """Parse what was read since the last call: return the events in order, answer pings, and count resyncs."""
        found: list[Arrival] = []
        for at, chunk in self.chunks:
            frames, self._buffer = split(self._buffer + chunk)
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
        elif b'"resync"' in payload:
            self.resyncs += 1
        elif b'"initial-load"' in payload:
            self.loads += 1

    def subscribe(self, matches: Iterable[int]) -> None:
        """Subscribe to matches, on a connection for many."""
        for match in matches:
            text = b'{"type":"subscribe","match_id":%d}' % match
            self.socket.send(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)

    def close(self) -> None:
        """Close the connection with a reset, so that thousands of connections leave no port in TIME_WAIT."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


def split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Split data into complete frames, each as opcode and payload, and the remaining data."""
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
    """Several open clients that are read together."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self.all = list(clients)
        files = {client.socket.fileno(): client for client in clients}
        # Bound methods are looked up once, because reading uses CPU time of the machine under test.
        self._receive = {file: client.socket.recv for file, client in files.items()}
        self._store = {file: client.chunks.append for file, client in files.items()}
        self._open = set(files)
        self._poll = select.epoll()
        for file in files:
            self._poll.register(file, select.EPOLLIN)

    def read_until(self, serial: int, timeout: float, pause: float = 0.0) -> float | None:
        """Read until every client has received an event; return the time at which the last client did.

        Return None if nothing arrives for `timeout` seconds. A `pause` (seconds) between two reads makes each read
        larger, which leaves more CPU time to the system under test.
        """
        marker, waiting = serial_marker(serial), set(self._open)
        last_bytes: dict[int, bytes] = {}
        while waiting:
            chunks = self._read(timeout)
            if not chunks:
                return None
            for file, chunk in chunks:
                if marker in chunk[-_LAST_EVENT_BYTES:] or (
                    file in last_bytes and marker in (last_bytes[file] + chunk)[-_LAST_EVENT_BYTES:]
                ):
                    waiting.discard(file)
                elif not chunk:
                    waiting.discard(file)  # closed
                elif file in waiting:
                    last_bytes[file] = chunk[-_LAST_EVENT_BYTES:]
            if pause:
                time.sleep(pause)
        return max(client.chunks[-1][0] for client in self.all if client.chunks)

    def _read(self, timeout: float) -> list[tuple[int, bytes]]:
        """Wait at most `timeout` seconds for data; store it for `arrivals`, and return it by file descriptor."""
        ready = self._poll.poll(timeout, 1 << 10)
        now = time.time()
        found = []
        for file, _ in ready:
            try:
                chunk = self._receive[file](_READ_BYTES)
            except OSError:
                chunk = b""
            if not chunk:
                self._poll.unregister(file)
                self._open.discard(file)
            self._store[file]((now, chunk))
            found.append((file, chunk))
        return found

    def discard(self) -> None:
        """Read and discard all available data, and answer pings."""
        while self._read(0):
            pass
        self.arrivals()

    def wait_until_loaded(self, count: int, timeout: float) -> None:
        """Read until every client has received so many initial loads."""
        while any(client.loads < count for client in self.all):
            assert self._read(timeout), "not every subscription begins"
            self.arrivals()

    def arrivals(self) -> list[list[Arrival]]:
        """Return the events that each client has received since the last call."""
        return [client.arrivals() for client in self.all]

    @property
    def closed(self) -> list[int]:
        """The close codes of the clients that the server has closed."""
        return [client.closed for client in self.all if client.closed is not None]

    def release(self) -> None:
        """Stop reading the clients, which stay open."""
        self._poll.close()

    def close(self) -> None:
        """Close all clients."""
        self.release()
        for client in self.all:
            client.close()


def on_each_worker(port: int, path: Callable[[int], str], workers: int) -> Clients:
    """Connect one client to each worker; `path` returns the path of the n-th client."""
    found: dict[bytes, Client] = {}
    for number in range(400):
        client = Client(port, path(number)).open()
        if client.worker in found:
            client.close()
        else:
            found[client.worker] = client
        if len(found) == workers:
            return Clients(list(found.values()))
    raise AssertionError(f"only {len(found)} of {workers} workers accepted a client")


def connect_all(port: int, path: Callable[[int], str], numbers: Iterable[int]) -> list[Client]:
    """Connect several clients at once."""
    clients = [Client(port, path(number)) for number in numbers]
    return [client.open() for client in clients]


def allow_open_files() -> None:
    """Raise the limit of open files of this process to its hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
