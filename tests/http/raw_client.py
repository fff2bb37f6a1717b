"""A TCP client that can send any bytes, also those that a WebSocket or HTTP library would refuse to send."""

import ctypes
import re
import socket
import struct
from contextlib import suppress
from typing import NamedTuple, Self

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
SOCKET_HEADERS = b"Host: x\r\n" + UPGRADE + KEY + b"Sec-WebSocket-Version: 13\r\n"
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_DROP_EVERYTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: ret 0


class Frame(NamedTuple):
    """A frame from the server."""

    opcode: int
    payload: bytes


class RawClient:
    """One connection.

    Args:
        port: the server's.
        window: bytes of the kernel's receive buffer; None for the default.
        address: the client's own, any of 127.0.0.0/8.
    """

    def __init__(self, port: int, window: int | None = None, address: str = "127.0.0.1") -> None:
        self.socket = socket.socket()
        self.socket.bind((address, 0))
        if window:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))
        self._unread = b""

    def send(self, data: bytes) -> Self:
        """Send as much as the server accepts before it closes the connection."""
        with suppress(ConnectionError):
            self.socket.sendall(data)
        return self

    def open_websocket(self, match: str = "1", name: str = "raw") -> Self:
        """Make the WebSocket handshake."""
        self.send(b"GET /api/matches/ws/id/%b/%b/ HTTP/1.1\r\n" % (match.encode(), name.encode()))
        self.send(SOCKET_HEADERS + b"\r\n")
        head, self._unread = self.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return self

    def read_until(self, end: bytes) -> tuple[bytes, bytes]:
        """Return what comes before `end`, and what was read behind it."""
        read = self._unread
        while end not in read:
            more = self.socket.recv(1 << 16)
            assert more, f"the connection ended after {read!r}"
            read += more
        head, _, rest = read.partition(end)
        return head, rest

    def end(self) -> bytes:
        """Shut down the sending half; return everything that comes until the server closes the connection."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        return self.read_all()

    def read_all(self) -> bytes:
        """Return everything that comes until the server closes the connection; TimeoutError after 10 s without it."""
        read, self._unread = [self._unread], b""
        with suppress(ConnectionError):
            while more := self.socket.recv(1 << 16):
                read.append(more)
        return b"".join(read)

    def close_code(self) -> int | None:
        """Return the code of the last frame if that is a close frame."""
        got = frames(self.read_all())
        return int.from_bytes(got[-1].payload[:2]) if got and got[-1].opcode == CLOSE else None

    def cut(self) -> None:
        """Acknowledge and answer nothing from now on, as if the cable were cut."""
        # By a socket filter that drops all incoming packets, which needs no privilege.
        program = ctypes.create_string_buffer(_DROP_EVERYTHING)
        self.socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", 1, ctypes.addressof(program))
        )

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, flags: int = 0) -> bytes:
    """Encode a client's frame (RFC 6455, 5.2); `flags` are the reserved bits."""
    first = opcode | flags | (0x80 if fin else 0)
    mask = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, mask | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    return head + (b"\0\0\0\0" if masked else b"") + payload  # a mask of zeros changes nothing


def frames(data: bytes) -> list[Frame]:
    """Decode frames from the server, which must be whole and not masked."""
    found = []
    while data:
        assert not data[0] & 0x70, data[:20]
        assert not data[1] & 0x80, data[:20]
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4]), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10]), 10
        found.append(Frame(data[0] & 0xF, data[start : start + size]))
        data = data[start + size :]
    return found


def statuses(answer: bytes) -> list[int]:
    """Return the statuses of the HTTP responses in an answer."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
