"""Writing to the socket of a connection, past the event loop where that is possible."""

import asyncio
import os
import socket
from contextlib import suppress

from app.broadcast.messages import MessageBatch

_TCP_USER_TIMEOUT_MS = 60_000  # the kernel drops a connection whose client acknowledged nothing for so long


def write_frames(transport: asyncio.Transport, descriptor: int | None, batch: MessageBatch) -> bool:
    """Write the WebSocket frames of a batch as `write_now` does."""
    return write_now(transport, descriptor, batch.websocket_frames)


def write_now(transport: asyncio.Transport, descriptor: int | None, data: bytes) -> bool:
    """Write data unless earlier bytes wait, or the transport is closing; return False then.

    If `descriptor` is that of a plain socket, it is written to directly: uvloop would queue the data until its next
    iteration.
    """
    if transport.get_write_buffer_size() or transport.is_closing():
        return False
    written = 0
    if descriptor is not None:
        try:  # noqa: SIM105 - `suppress` takes as long as the rest of this function without the system call
            written = os.write(descriptor, data)
        except OSError:  # the transport meets the same error and handles it
            pass
    if written < len(data):
        transport.write(data[written:])
    return True


def plain_descriptor(transport: asyncio.Transport) -> int | None:
    """Return the descriptor of a transport's socket; None if TLS, or something else, is in between."""
    connection = transport.get_extra_info("socket")
    return None if connection is None or transport.get_extra_info("sslcontext") else connection.fileno()


def set_tcp_user_timeout(transport: asyncio.Transport) -> None:
    """Have the kernel end a connection whose other end does not acknowledge what was sent."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):  # the client is gone already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
