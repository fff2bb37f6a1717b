"""A TCP client that says whatever it likes, below any library that would keep it from it."""

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
    """A frame of the server's."""

    opcode: int
    payload: bytes


class RawClient:
    """One connection.

    Args:
        port: of the application.
        window: bytes the kernel takes in for it while it doesn't read; None for the usual.
    """

    def __init__(self, port: int, window: int | None = None) -> None:
        self.socket = socket.socket()
        if window:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))
        self._waiting = b""

    def say(self, data: bytes) -> Self:
        """Sends as much as the other side takes before it hangs up."""
        with suppress(ConnectionError):
            self.socket.sendall(data)
        return self

    def enter(self, match: str = "1", name: str = "stranger") -> Self:
        """Becomes a WebSocket client."""
        self.say(b"GET /api/matches/ws/id/%b/%b/ HTTP/1.1\r\n" % (match.encode(), name.encode()))
        self.say(SOCKET_HEADERS + b"\r\n")
        head, self._waiting = self.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return self

    def until(self, end: bytes) -> tuple[bytes, bytes]:
        """Reads up to `end`, and what came after it."""
        read = self._waiting
        while end not in read:
            more = self.socket.recv(1 << 16)
            assert more, f"it ended after {read!r}"
            read += more
        head, _, rest = read.partition(end)
        return head, rest

    def finish(self) -> bytes:
        """Says that nothing more comes; everything that the other side says until it hangs up."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        return self.rest()

    def rest(self) -> bytes:
        """Everything that the other side says until it hangs up; TimeoutError if it doesn't within 10 s."""
        read, self._waiting = [self._waiting], b""
        with suppress(ConnectionError):
            while more := self.socket.recv(1 << 16):
                read.append(more)
        return b"".join(read)

    def closed(self) -> int | None:
        """The code of the close frame that is the last one; None if there was none."""
        got = frames(self.rest())
        return int.from_bytes(got[-1].payload[:2]) if got and got[-1].opcode == CLOSE else None

    def vanish(self) -> None:
        """From now on it acknowledges nothing and answers nothing, as if its cable were cut."""
        # A socket filter that drops all that comes in; no right is needed for it.
        program = ctypes.create_string_buffer(_DROP_EVERYTHING)
        self.socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", 1, ctypes.addressof(program))
        )

    def reset(self) -> None:
        """Hangs up with a TCP reset."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, flags: int = 0) -> bytes:
    """A client's frame (RFC 6455, 5.2); `flags` are the reserved bits."""
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
    """The server's frames, which are whole and not masked."""
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
    """The statuses of the HTTP responses in what a server said."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
