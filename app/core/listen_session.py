"""One non-blocking LISTEN session, the same for the listener and for a worker in PostgreSQL mode.

The listener waits for the session's socket with `poll`, a worker with its event loop. `ListenSession.receive` is the
only way to read notifications, so none is reordered or lost between a query's result and the next read.
"""

import msgspec
import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from app.core.text_encoding import client_codec, encode, to_utf8


class Notification(msgspec.Struct, frozen=True, gc=False):
    """A notification; the payload is UTF-8, whatever the encoding of the database."""

    channel: str
    payload: bytes


class ListenSession:
    """The notification side of one libpq connection. It never blocks and has no thread, clock or event loop.

    Args:
        pgconn: an open connection, which only this object uses from now on.
    """

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        self._pgconn.nonblocking = 1
        self._codec = client_codec(pgconn)
        # PostgreSQL itself sees to it that a UTF8 database, or one that it converts to UTF8, sends nothing else.
        self._is_utf8 = pgconn.parameter_status(b"client_encoding") == b"UTF8"
        self._failure: psycopg.Error | None = None
        self.is_idle = True  # no query waits for its answer

    def fileno(self) -> int:
        """The socket, to wait on until it is readable."""
        return self._pgconn.socket

    def send(self, sql: str) -> None:
        """Send one simple query; the session has to be idle.

        Raises:
            psycopg.Error: the session is lost, or the database's encoding lacks a character of the query.
        """
        self._pgconn.send_query(encode(self._pgconn, sql))
        self.is_idle = False
        self._pgconn.flush()

    def receive(self) -> list[Notification]:
        """Return the notifications that have arrived since the last call, in order, without waiting.

        PostgreSQL sends a session's own notification before the end of the answer to the query that sent it. So once
        the session is idle, this or an earlier call has returned all notifications of its own queries.

        Raises:
            psycopg.Error: the session is lost.
        """
        self._pgconn.consume_input()
        self._read_results()
        received: list[Notification] = []
        notifies = self._pgconn.notifies
        while note := notifies():
            payload = note.extra if self._is_utf8 else to_utf8(note.extra, self._codec)
            received.append(Notification(note.relname.decode(self._codec, "replace"), payload))
        return received

    def take_outcome(self) -> psycopg.Error | None:
        """Return why the last query failed, once; None if it did not fail. The session goes on."""
        failure, self._failure = self._failure, None
        return failure

    def _read_results(self) -> None:
        while not self.is_idle and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                self.is_idle = True
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                error = error_from_result(result, self._codec)
                if is_lost(self._pgconn, error):
                    raise error
                self._failure = error
        self._pgconn.flush()


def is_lost(pgconn: pq.abc.PGconn, error: psycopg.Error) -> bool:
    """Whether an error ended a session: libpq's own error has no SQLSTATE, and class 57P is a shutdown."""
    return pgconn.status != pq.ConnStatus.OK or (error.sqlstate or "57P").startswith("57P")
