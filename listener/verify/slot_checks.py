"""The checks of PostgreSQL with SOURCE=wal."""

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import psycopg
from psycopg import conninfo as libpq

from app.core.config import Settings
from app.core.operator_errors import MAKE_SLOT_ROOM
from app.core.postgres import listening_conninfo, literal
from app.core.postgres_connect import connect, query
from listener.slot_state import UNBOUNDED, SlotState, look_sql
from listener.verify import postgres_checks
from listener.verify.postgres_checks import read_row, read_rows
from listener.verify.result import Check, failed, passed, warned
from listener.wal.slot import PLUGIN, READER_NAME, WAITING_NAME

_LARGE_BYTES = 2**30
_SEE_LISTENER = "supervisorctl status listener; its log says why"
_LET_IT_MOVE = (
    "bring Redis back if it is away, or end the transaction that has been open for longest: "
    "SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start"
)

_SLOT = "SELECT coalesce(plugin, ''), coalesce(database, '') FROM pg_replication_slots WHERE slot_name = {slot}"
_ROOM = """
SELECT current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_get_wal_senders())
"""
# The name of a reader's connection ends with the process id of its other session, whose name has the pod.
_READER = """
SELECT coalesce(reader.application_name, ''), coalesce(other.application_name, '')
FROM pg_stat_get_activity({pid}) AS reader
LEFT JOIN pg_stat_get_activity(NULL) AS other ON reader.application_name = {name} || other.pid
"""
_NOTIFIES_ONLY = "p.prosrc ~* 'pg_notify' AND p.prosrc !~* 'pg_logical_emit_message'"


class _Found(NamedTuple):
    plugin: str
    database: str
    state: SlotState


def run_checks(connection: psycopg.Connection, settings: Settings, url: str) -> Iterator[Check]:
    """Run every check on a connection of `postgres_checks.connect` to `url`."""
    try:
        yield postgres_checks.version(connection)
        yield wal_level(connection)
        yield postgres_checks.connections(connection, 0)
        found = _find(connection, settings.wal_slot)
        yield from postgres_checks.schema(connection, "wal")
        yield room(connection, found)
        yield replication(url, settings.pod_name)
        yield slot(connection, settings, found)
        if found:
            yield reader(connection, found.state)
            yield kept_wal(found.state)
            yield limit(found.state)
        for channel in settings.notify_channels:
            yield triggers(connection, channel)
    except psycopg.Error as error:
        yield postgres_checks.failed_check("PostgreSQL's answers", error)


def wal_level(connection: psycopg.Connection) -> Check:
    """Whether the WAL has what a slot's reader needs."""
    name, [level] = "wal_level", read_row(connection, "SELECT current_setting('wal_level')")
    if level == "logical":
        return passed(name, level)
    return failed(name, level, "ALTER SYSTEM SET wal_level = 'logical', and restart PostgreSQL; or set SOURCE=notify")


def room(connection: psycopg.Connection, found: _Found | None) -> Check:
    """Whether PostgreSQL has a connection to read a slot left, and a slot if there is none yet."""
    slots, used_slots, senders, used_senders = map(int, read_row(connection, _ROOM))
    name = "replication room"
    text = (
        f"{used_slots} of {slots} slots used (max_replication_slots), "
        f"{used_senders} of {senders} connections that read them (max_wal_senders)"
    )
    if used_senders >= senders or (found is None and used_slots >= slots):
        return warned(name, text, MAKE_SLOT_ROOM)
    return passed(name, text)


def replication(url: str, pod: str) -> Check:
    """Whether this role can open a connection that reads a slot: its right, pg_hba.conf, and a pooler's absence."""
    name = "replication right"
    conninfo = listening_conninfo(url, f"notifymux-verify/{pod}")
    try:
        with closing(connect(libpq.make_conninfo(conninfo, replication="database"))) as connection:
            query(connection.pgconn, "IDENTIFY_SYSTEM", postgres_checks.QUERY_TIMEOUT_SECONDS)
    except psycopg.Error as error:
        return postgres_checks.failed_check(name, error)
    return passed(name, "this role can read a slot")


def _find(connection: psycopg.Connection, name: str) -> _Found | None:
    for plugin, database in read_rows(connection, _SLOT.format(slot=literal(name))):
        for row in read_rows(connection, look_sql(name, WAITING_NAME)):
            return _Found(plugin, database, SlotState.parse(row, 0.0, None))
    return None


def slot(connection: psycopg.Connection, settings: Settings, found: _Found | None) -> Check:
    """Whether there is a slot that the listener can read."""
    name, slot_name = "replication slot", settings.wal_slot
    if found is None:
        return failed(name, f"there is no {slot_name}: the listener makes it when it starts", _SEE_LISTENER)
    [own] = read_row(connection, "SELECT current_database()")
    text = f"{slot_name}, {found.plugin} in database {found.database or '(none)'}"
    if (found.plugin, found.database) != (PLUGIN, own):
        return failed(name, f"{text}: it is of another database or of another program", "set WAL_SLOT to another name")
    return passed(name, text)


def reader(connection: psycopg.Connection, state: SlotState) -> Check:
    """Who reads the slot."""
    name, pid = "slot reader", state.active_pid
    if not pid:
        return failed(name, "nobody reads it, and PostgreSQL keeps WAL for it", _SEE_LISTENER)
    rows = read_rows(connection, _READER.format(pid=pid, name=literal(READER_NAME)))
    [reading, other] = rows[0] if rows else ["", ""]
    if reading and not reading.startswith(READER_NAME):
        return failed(name, f"pid {pid} ({reading}), which is no listener", "set WAL_SLOT to another name")
    return passed(name, f"pid {pid} ({other or reading or 'this role may not see whose'})")


def kept_wal(state: SlotState) -> Check:
    """How much WAL PostgreSQL keeps for the slot."""
    name, kept = "slot WAL", state.retained_bytes
    text = f"{kept / 2**20:,.1f} MiB kept, {state.wal_status}, confirmed up to {state.confirmed}"
    if state.is_in_danger:
        return failed(name, text, f"{_LET_IT_MOVE}. Or raise max_slot_wal_keep_size")
    is_large = kept > (state.max_bytes / 2 if state.max_bytes > 0 else _LARGE_BYTES)
    if is_large or state.wal_status == "extended":
        return warned(name, text, _LET_IT_MOVE)
    return passed(name, text)


def limit(state: SlotState) -> Check:
    """Whether anything bounds what PostgreSQL keeps."""
    name = "slot limit"
    if state.max_bytes < 0:
        return warned(name, *UNBOUNDED)
    return passed(name, f"max_slot_wal_keep_size is {state.max_bytes / 2**20:,.0f} MiB")


def triggers(connection: psycopg.Connection, channel: str) -> Check:
    """Which tables' triggers name a channel, and whether some of them NOTIFY there, which nobody hears."""
    tables = postgres_checks.tables_with_trigger(connection, channel, _NOTIFIES_ONLY)
    if tables:
        return warned(
            f"triggers {channel}",
            f"on {', '.join(tables)}, by pg_notify(), which SOURCE=wal does not hear",
            "see docs/wal.md, How to send",
        )
    return postgres_checks.triggers(connection, channel)
