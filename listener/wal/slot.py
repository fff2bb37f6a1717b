"""The replication slot: it is made, inspected, taken over and dropped. Everything here blocks: it is for a thread.

Who reads the slot shows by a second session that it lives: the name of its replication connection has that session's
process id. So whoever waits for the slot needs nothing but PostgreSQL to know that the reader is frozen.
"""

import logging
from contextlib import suppress
from typing import NamedTuple

from psycopg import errors, pq

from app.core.operator_errors import OperatorError
from app.core.postgres import literal
from app.core.postgres_connect import Backend, query

logger = logging.getLogger(__name__)

PLUGIN = "pgoutput"
READER_NAME = "notifymux-slot/"  # followed by the process id of the reader's other session
WAITING_NAME = "notifymux-waits/"  # of the session of a listener that waits for the slot, and reaches Redis
_FROZEN_SECONDS = 5  # without a query of the reader's other session, which sends one a second
_FAILOVER_SLOTS = 17_00_00  # the server version since which a standby can have the slot
_CREATION_SECONDS = 3  # after which the creation is given up, to say what it waits for

_SLOT = """
SELECT plugin, database = current_database(), wal_status, current_setting('wal_level'),
       active_pid IS NULL AND pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) > {max_behind}
FROM (SELECT) AS one LEFT JOIN pg_replication_slots ON slot_name = {slot}
"""
_OLDEST_TRANSACTION = """
SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::int FROM pg_stat_activity
WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY age(backend_xid) DESC LIMIT 1
"""
_DROP = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {slot}"
_PUBLICATION = "SELECT FROM pg_publication WHERE pubname = {name}"
# One that publishes something is not ours.
_EMPTY_PUBLICATION = """
SELECT FROM pg_publication
WHERE pubname = {name} AND NOT puballtables AND pubname NOT IN (SELECT pubname FROM pg_publication_tables)
"""
# The name of a reader's connection ends with the process id of its other session.
_READER = """
SELECT reader.pid, (extract(epoch FROM reader.backend_start) * 1000000)::bigint,
       other.pid, (extract(epoch FROM other.backend_start) * 1000000)::bigint,
       other.pid IS NULL
       OR (other.state = 'idle' AND clock_timestamp() - other.state_change > {frozen} * interval '1 second')
FROM pg_replication_slots, pg_stat_get_activity(active_pid) AS reader
LEFT JOIN pg_stat_get_activity(NULL) AS other ON reader.application_name = {name} || other.pid
WHERE slot_name = {slot} AND active_pid IS NOT NULL
"""
_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity({pid})
WHERE (extract(epoch FROM backend_start) * 1000000)::bigint = {started}
"""


class SlotSettings(NamedTuple):
    """How a slot is read.

    Args:
        name: of the slot and its publication: lower-case letters, digits and _.
        channels: whose messages are read, besides our own.
        trail_seconds: for how long events are in Redis until the slot may forget them.
        max_held_bytes: of transactions that are sent before they commit.
        max_behind_bytes: of WAL after what is confirmed, until the slot is made anew.
    """

    name: str
    channels: tuple[str, ...]
    trail_seconds: float
    max_held_bytes: int
    max_behind_bytes: int


class Reader(NamedTuple):
    """Who reads the slot.

    Args:
        backend: of the replication connection.
        other: of the session by which it shows that it lives; None if that has ended.
        is_frozen: whether that session has shown nothing for some seconds, or has ended.
    """

    backend: Backend
    other: Backend | None
    is_frozen: bool


class Slot:
    """One slot, seen over an ordinary session.

    Args:
        pgconn: of the session.
        name: of the slot, and of the empty publication that goes with it.
    """

    def __init__(self, pgconn: pq.abc.PGconn, name: str) -> None:
        self._pgconn, self._name = pgconn, name
        self._is_shown = False  # the session, as one that waits

    def prepare(self, max_behind_bytes: int) -> None:
        """Make the slot and the publication if they are missing.

        A slot that PostgreSQL has given up is made anew, and so is one that nobody reads and that keeps too much back.

        Args:
            max_behind_bytes: of WAL after what is confirmed.

        Raises:
            psycopg.Error: PostgreSQL refuses, or does not answer.
            OperatorError: the server's settings, or what has the slot's name, are in the way.
        """
        sql = _SLOT.format(slot=literal(self._name), max_behind=max_behind_bytes)
        [[plugin, is_ours, wal_status, wal_level, is_too_far_behind]] = query(self._pgconn, sql)
        if wal_level != b"logical":
            raise OperatorError(
                f"SOURCE=wal needs wal_level=logical, and it is {(wal_level or b'').decode()}",
                "ALTER SYSTEM SET wal_level = 'logical', and restart PostgreSQL; or set SOURCE=notify",
            )
        if plugin is not None and (plugin != PLUGIN.encode() or is_ours != b"t"):
            raise OperatorError(
                f"the replication slot {self._name} is of another database or of another program",
                "set WAL_SLOT to another name",
            )
        if wal_status == b"lost":
            logger.error("PostgreSQL has given up the replication slot %s: it is made anew", self._name)
        elif is_too_far_behind == b"t":
            logger.error("the replication slot %s keeps more WAL back than WAL_LIMIT: it is made anew", self._name)
        if wal_status == b"lost" or is_too_far_behind == b"t":
            self._drop_slot()
            plugin = None
        self._create_publication()
        if plugin is None:
            self._create()

    def _create_publication(self) -> None:
        # Looked for first: without the right CREATE, PostgreSQL refuses to make even one that is there.
        if not query(self._pgconn, _PUBLICATION.format(name=literal(self._name))):
            with suppress(errors.DuplicateObject):
                query(self._pgconn, f'CREATE PUBLICATION "{self._name}"')

    def _create(self) -> None:
        failover = ", failover => true" if self._pgconn.server_version >= _FAILOVER_SLOTS else ""
        create = f"SELECT pg_create_logical_replication_slot({literal(self._name)}, '{PLUGIN}'{failover})"
        query(self._pgconn, f"SET statement_timeout = {_CREATION_SECONDS * 1000}")
        try:
            query(self._pgconn, create, _CREATION_SECONDS + 1.0)
        except errors.DuplicateObject:  # another listener was faster
            pass
        except errors.QueryCanceled:
            raise OperatorError(
                f"the replication slot {self._name} can't be made while older transactions run{self._oldest()}",
                "wait for them, or end them",
            ) from None
        else:
            logger.info("made the replication slot %s", self._name)
        finally:
            query(self._pgconn, "SET statement_timeout = 0")

    def _oldest(self) -> str:
        rows = query(self._pgconn, _OLDEST_TRANSACTION)
        return "".join(f", the first for {int(age or 0)} s (pid {int(pid or 0)})" for pid, age in rows)

    def reader(self) -> Reader | None:
        """Who reads the slot; None if nobody does.

        Raises:
            psycopg.Error: PostgreSQL does not answer.
        """
        values = {"slot": literal(self._name), "name": literal(READER_NAME), "frozen": _FROZEN_SECONDS}
        rows = query(self._pgconn, _READER.format(**values))
        if not rows:
            return None
        pid, started, other, other_started, is_frozen = rows[0]
        backend = Backend(int(pid or 0), int(started or 0))
        return Reader(backend, Backend(int(other), int(other_started or 0)) if other else None, is_frozen == b"t")

    def show_as_waiting(self, *, shown: bool) -> None:
        """Show in the session's name that it waits for the slot and could forward what it sends; or no longer.

        Raises:
            psycopg.Error: PostgreSQL does not answer.
        """
        if shown != self._is_shown:
            name = literal(f"{WAITING_NAME}{self._name}") if shown else "DEFAULT"
            query(self._pgconn, f"SET application_name TO {name}")
            self._is_shown = shown

    def end(self, reader: Reader) -> None:
        """End a reader that is frozen, by the very backends that were seen.

        Raises:
            psycopg.Error: PostgreSQL refuses, or does not answer.
        """
        for backend in filter(None, (reader.other, reader.backend)):
            query(self._pgconn, _END.format(**backend._asdict()))

    def drop(self) -> None:
        """Drop the slot and the publication, if they are there. A publication that has tables is another program's.

        Raises:
            psycopg.Error: PostgreSQL refuses, or somebody reads the slot.
        """
        self._drop_slot()
        if query(self._pgconn, _EMPTY_PUBLICATION.format(name=literal(self._name))):
            query(self._pgconn, f'DROP PUBLICATION IF EXISTS "{self._name}"')

    def _drop_slot(self) -> None:
        query(self._pgconn, _DROP.format(slot=literal(self._name)))
