"""Opens sessions that read the slot. Everything here blocks: it is for a thread."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from psycopg import conninfo as libpq
from psycopg import errors

from app.core.cluster import Cluster
from app.core.postgres import with_options
from app.core.postgres_connect import Backend, OpenSession, connect, open_session, query, start_replication
from listener.wal.replication_connection import ReplicationConnection
from listener.wal.slot import READER_NAME, Slot, SlotSettings
from listener.wal.wal_session import NextSession, WalSession

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.25  # between two looks at a slot that somebody else reads
_IDENTIFY = "IDENTIFY_SYSTEM"
_START = (
    'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 '
    "(proto_version '2', publication_names '\"{slot}\"', messages 'true', streaming '{streaming}')"
)


class WalConnector:
    """Opens sessions, each of which replaces the one before.

    Args:
        conninfo: returns the connection string; it reads the password anew.
        settings: of the slot.
    """

    def __init__(self, conninfo: Callable[[], str], settings: SlotSettings) -> None:
        self._conninfo, self._settings = conninfo, settings
        self._last: Backend | None = None
        self._next = NextSession()
        self.waits_for = ""  # why `connect` has not returned yet: the slot's reader; empty if it is nothing of the kind

    def connect(self) -> WalSession:
        """Wait until the slot is free, and read it.

        Raises:
            psycopg.Error: PostgreSQL can't be reached, or refuses.
            OperatorError, SettingsError: only an operator can fix it.
        """
        try:
            conninfo = self._conninfo()
            # No query may wait for a synchronous standby: they ask what others can see meanwhile.
            options = with_options(conninfo, {"synchronous_commit": "local"})
            opened = open_session(libpq.make_conninfo(conninfo, options=options), self._last)
            self._last = opened.backend
            try:
                return self._read_slot(opened, conninfo)
            except BaseException:
                opened.connection.close()
                raise
        finally:
            self.waits_for = ""

    def _read_slot(self, opened: OpenSession, conninfo: str) -> WalSession:
        slot = Slot(opened.connection.pgconn, self._settings.name)
        slot.prepare(anew=self._next.makes_slot)
        self._next.makes_slot = False
        while True:
            self._wait_for(slot)
            with suppress(errors.ObjectInUse):  # somebody else was faster
                return self._start(opened, conninfo)

    def _start(self, opened: OpenSession, conninfo: str) -> WalSession:
        name = f"{READER_NAME}{opened.backend.pid}"
        connection = connect(libpq.make_conninfo(conninfo, replication="database", application_name=name))
        try:
            [[identifier, timeline, *_]] = query(connection.pgconn, _IDENTIFY)
            cluster = Cluster(int(identifier or 0), int(timeline or 0))
            start = _START.format(slot=self._settings.name, streaming="on" if self._next.streams else "off")
            start_replication(connection.pgconn, start)
            self._next = NextSession()
            replication = ReplicationConnection(connection, self._settings)
            return WalSession(opened, replication, cluster, self._settings, self._next)
        except BaseException:
            connection.close()
            raise

    def _wait_for(self, slot: Slot) -> None:
        """Wait until nobody reads the slot. A reader that is frozen is ended."""
        name = self._settings.name
        while reader := slot.reader():
            if not self.waits_for:
                logger.info("another listener reads the replication slot %s (pid %d)", name, reader.backend.pid)
            self.waits_for = f"another listener reads the replication slot {name} (pid {reader.backend.pid})"
            if reader.is_frozen:
                logger.warning("the listener that reads the replication slot %s is frozen, and is ended", name)
                slot.end(reader)
            time.sleep(_POLL_SECONDS)
