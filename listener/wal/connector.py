"""Opens sessions that read the slot. Everything here blocks: it is for a thread."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from psycopg import conninfo as libpq
from psycopg import errors

from app.core.cluster import Cluster
from app.core.postgres import with_options
from app.core.postgres_connect import Backend, OpenSession, connect, open_session, query, start_replication
from listener.environment import NoLongerWantedError
from listener.slot_state import UNBOUNDED, SlotState, look_sql
from listener.wal.replication_connection import ReplicationConnection
from listener.wal.slot import READER_NAME, WAITING_NAME, Reader, Slot, SlotSettings
from listener.wal.wal_session import PREPARE, ReaderState, WalSession

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
        redis_answers: whether Redis takes this process's heartbeats. While it does not, the slot is left to others.
        is_wanted: whether this listener is to wait for the slot; if not, enough others do.
    """

    def __init__(
        self,
        conninfo: Callable[[], str],
        settings: SlotSettings,
        redis_answers: Callable[[], bool],
        is_wanted: Callable[[], bool],
    ) -> None:
        self._conninfo, self._settings, self._is_wanted = conninfo, settings, is_wanted
        self._last: Backend | None = None
        self._is_warned = False  # that nothing bounds what the slot keeps
        self._state = ReaderState(redis_answers)
        self.waits_for = ""  # why `connect` has not returned yet, if it waits for another listener to end, or for Redis

    def connect(self) -> WalSession:
        """Wait until the slot is free, and read it.

        Raises:
            psycopg.Error: PostgreSQL can't be reached, or refuses.
            OperatorError, SettingsError: only an operator can fix it.
            NoLongerWantedError: enough others wait for the slot.
        """
        with ExitStack() as stack:
            stack.callback(self._waits_no_more)
            conninfo = self._conninfo()
            # No query may wait for a synchronous standby: they ask what others can see meanwhile.
            options = with_options(conninfo, {"synchronous_commit": "local"})
            opened = open_session(libpq.make_conninfo(conninfo, options=options), self._last)
            failed = stack.enter_context(ExitStack())
            failed.callback(opened.connection.close)
            self._last = opened.backend
            session = self._read_slot(opened, conninfo)
            failed.pop_all()
            return session

    def _waits_no_more(self) -> None:
        self.waits_for = ""

    def _read_slot(self, opened: OpenSession, conninfo: str) -> WalSession:
        slot = Slot(opened.connection.pgconn, self._settings.name)
        slot.prepare(self._settings.max_behind_bytes)
        query(opened.connection.pgconn, PREPARE)
        while True:
            if (reader := slot.reader()) is None:
                slot.prepare(self._settings.max_behind_bytes)
                if self._state.redis_answers():
                    slot.show_as_waiting(shown=False)
                    with suppress(errors.ObjectInUse):  # somebody else was faster
                        return self._start(opened, conninfo)
                    continue
            self._wait(slot, reader)

    def _start(self, opened: OpenSession, conninfo: str) -> WalSession:
        name = f"{READER_NAME}{opened.backend.pid}"
        connection = connect(libpq.make_conninfo(conninfo, replication="database", application_name=name))
        with ExitStack() as failed:
            failed.callback(connection.close)
            [[identifier, timeline, *_]] = query(connection.pgconn, _IDENTIFY)
            cluster = Cluster(int(identifier or 0), int(timeline or 0))
            start = _START.format(slot=self._settings.name, streaming="on" if self._state.streams else "off")
            start_replication(connection.pgconn, start)
            self._state.streams = True  # again after this session
            replication = ReplicationConnection(connection, self._settings)
            session = WalSession(opened, replication, cluster, self._settings, self._state)
            session.slot_state = self._look(opened)
            failed.pop_all()
        return session

    def _look(self, opened: OpenSession) -> SlotState:
        pgconn = opened.connection.pgconn
        [row] = query(pgconn, look_sql(self._settings.name, WAITING_NAME))
        state = SlotState.parse([(value or b"").decode() for value in row], time.time(), None)
        if state.max_bytes < 0 and not self._is_warned:
            self._is_warned = True
            logger.warning("%s: %s", *UNBOUNDED)
        return state

    def _wait(self, slot: Slot, reader: Reader | None) -> None:
        """Wait a moment for the reader of the slot to end, or for Redis. A reader that is frozen is ended."""
        if not self._is_wanted():
            raise NoLongerWantedError
        self._explain(reader)
        can_read = self._state.redis_answers()
        slot.show_as_waiting(shown=can_read)
        if reader and reader.is_frozen and can_read:
            name = self._settings.name
            logger.warning("the listener that reads the replication slot %s is frozen, and is ended", name)
            slot.end(reader)
        time.sleep(_POLL_SECONDS)

    def _explain(self, reader: Reader | None) -> None:
        name = self._settings.name
        why = "Redis does not answer"
        if reader:
            why = f"another listener reads the replication slot {name} (pid {reader.backend.pid})"
        if why != self.waits_for:
            logger.info("this listener waits: %s", why)
            self.waits_for = why
