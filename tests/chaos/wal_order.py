"""The commit order as a replication slot of the test's own has it."""

import json
import select
import struct
import time
from contextlib import closing
from typing import LiteralString

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from tests.chaos.delivery_check import EventKey
from tests.chaos.load import CHANNELS, CommitOrder

SLOT = "chaos_order"
_IS_READABLE = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s AND wal_status <> 'lost'"
_CREATION: tuple[LiteralString, ...] = (
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'chaos_order'",
    "DROP PUBLICATION IF EXISTS chaos_order",
    "CREATE PUBLICATION chaos_order",
    "SELECT pg_create_logical_replication_slot('chaos_order', 'pgoutput')",
)
_START = (
    b"START_REPLICATION SLOT chaos_order LOGICAL 0/0 "
    b"(proto_version '1', publication_names 'chaos_order', messages 'true')"
)
# https://www.postgresql.org/docs/current/protocol-replication.html and protocol-logicalrep-message-formats.html
_PREFIXES = {f"notifymux:{channel}".encode() for channel in CHANNELS}
_HEADER_BYTES = 25  # of the frames with data
_LSN = struct.Struct("!Q")
_MESSAGE_BYTES = 10  # the type, flags, the LSN
_STATUS = struct.Struct("!cQQQQB")
_STATUS_SECONDS = 0.5


class WalOrder(CommitOrder):
    """What is committed while the slot exists is recorded, even if PostgreSQL dies meanwhile.

    A new session begins where the slot had to be made anew: after a promotion, or where PostgreSQL has given it up.
    """

    def work(self) -> None:
        with closing(psycopg.connect(self._conninfo, autocommit=True, application_name="chaos-order")) as connection:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            if row != (False,):
                raise psycopg.OperationalError("the address leads to a standby")
            if connection.execute(_IS_READABLE, [SLOT]).fetchone() == (0,):
                for statement in _CREATION:
                    connection.execute(statement)
                self.sessions.append([])
        replication = make_conninfo(self._conninfo, replication="database", application_name="chaos-order")
        with closing(psycopg.connect(replication, autocommit=True)) as connection:
            self._read(connection.pgconn)

    def _read(self, pgconn: pq.abc.PGconn) -> None:
        result = pgconn.exec_(_START)
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise psycopg.OperationalError(result.error_message.decode())
        self.listening.set()
        received, status_due = 0, 0.0
        while not self.stopping.is_set():
            select.select([pgconn.socket], [], [], 0.1)
            pgconn.consume_input()
            while (length := (copied := pgconn.get_copy_data(1))[0]) > 0:
                received = max(received, self._on_frame(bytes(copied[1])))
            if length < 0:
                raise psycopg.OperationalError("the server has ended the replication")
            if time.monotonic() >= status_due:
                status_due = time.monotonic() + _STATUS_SECONDS
                pgconn.put_copy_data(_STATUS.pack(b"r", received, received, received, 0, 0))
                pgconn.flush()

    def _on_frame(self, frame: bytes) -> int:
        """Record what a frame brings; return the LSN up to which everything is recorded, or 0."""
        kind = frame[:1] if frame[:1] == b"k" else frame[_HEADER_BYTES : _HEADER_BYTES + 1]
        if kind == b"k":
            return int(_LSN.unpack_from(frame, 1)[0])
        if kind == b"C":  # flags, the LSN of the commit record, that of the end of the transaction
            return int(_LSN.unpack_from(frame, _HEADER_BYTES + 10)[0])
        if kind == b"M":
            prefix, _, content = frame[_HEADER_BYTES + _MESSAGE_BYTES :].partition(b"\0")
            if prefix in _PREFIXES:
                self._record(json.loads(content[4:])["data"])
        return 0

    def _record(self, data: dict[str, int]) -> None:
        event = EventKey(data["w"], data["n"])
        if event not in self.indexes:  # the slot sends again what was not confirmed before PostgreSQL died
            self.indexes[event] = len(self.indexes)
            self.sessions[-1].append(event)
