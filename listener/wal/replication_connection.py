"""A connection that reads a replication slot. It never blocks; its owner waits for its socket."""

import time
from functools import partial

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from app.core.text_encoding import server_codec, to_utf8
from listener.sequencer.wal_message import WalMessage
from listener.wal.pgoutput import PgoutputDecoder, status_update
from listener.wal.slot import SlotSettings
from notifymux.event import MUX_CHANNEL

_MAX_BYTES = 1 << 20  # of one read; the rest is left for the next
_STATUS_SECONDS = 1.0


class ReplicationConnection:
    """The messages of one slot, from `START_REPLICATION` on.

    Args:
        connection: in replication mode; this object closes it.
        settings: of the slot.
    """

    def __init__(self, connection: psycopg.Connection, settings: SlotSettings) -> None:
        self._connection, self._pgconn = connection, connection.pgconn
        self._pgconn.nonblocking = 1
        # A content comes as it was written, in the encoding of the database.
        is_utf8 = self._pgconn.parameter_status(b"server_encoding") == b"UTF8"
        convert = _as_it_is if is_utf8 else partial(to_utf8, codec=server_codec(self._pgconn))
        self._decoder = PgoutputDecoder({MUX_CHANNEL, *settings.channels}, convert, settings.max_held_bytes)
        self._status_due = 0.0

    @property
    def backend_pid(self) -> int:
        """The server's process."""
        return self._pgconn.backend_pid

    def fileno(self) -> int:
        """The socket, to wait on until it is readable."""
        return self._pgconn.socket

    def receive(self) -> list[WalMessage]:
        """Return messages that have arrived, without waiting; if there are many, not all.

        Raises:
            psycopg.Error: the connection is lost.
            StreamingNotPossible: open transactions must not be sent before they commit.
        """
        self._pgconn.consume_input()
        frames: list[bytes] = []
        size = 0
        while size < _MAX_BYTES:
            length, frame = self._pgconn.get_copy_data(1)
            if length == 0:
                break
            if length < 0:
                raise self._end()
            frames.append(bytes(frame))
            size += length
        return self._decoder.decode(frames)

    def _end(self) -> psycopg.Error:
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            return error_from_result(result)
        return psycopg.OperationalError("the server has ended the replication")

    def send_status(self, confirmed: int) -> None:
        """Say what was received and what the slot may forget; once a second, or when the server has asked.

        Raises:
            psycopg.Error: the connection is lost.
        """
        now = time.monotonic()
        if now >= self._status_due or self._decoder.reply_is_due:
            self._status_due, self._decoder.reply_is_due = now + _STATUS_SECONDS, False
            self._pgconn.put_copy_data(status_update(self._decoder.wal_end, confirmed, time.time()))
        self._pgconn.flush()

    def close(self) -> None:
        """End it; the slot stays."""
        self._connection.close()


def _as_it_is(content: bytes) -> bytes:
    return content
