"""`python -m listener drop-slot`: what SOURCE=wal has made in PostgreSQL is removed. It blocks."""

from contextlib import closing

import psycopg
from psycopg import errors

from app.core.operator_errors import OperatorError, with_remedy
from app.core.postgres import literal
from app.core.postgres_connect import open_session, query
from listener.wal.slot import PLUGIN, Slot

_LOOK = """
SELECT plugin, database = current_database(), coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = {slot}
"""


def drop_slot(conninfo: str, name: str) -> str:
    """Drop a slot and its publication; return in one line what was done. It does no harm to call it again.

    Args:
        conninfo: of the slot's database.
        name: the slot's.

    Raises:
        OperatorError: somebody reads the slot, it is not this program's, or PostgreSQL refuses or can't be reached.
    """
    try:
        with closing(open_session(conninfo).connection) as connection:
            rows = query(connection.pgconn, _LOOK.format(slot=literal(name)))
            for plugin, is_ours, active_pid in rows:
                if (plugin, is_ours) != (PLUGIN.encode(), b"t"):
                    raise OperatorError(
                        f"the replication slot {name} is of another database or of another program",
                        "set WAL_SLOT and DB_NAME to those of the slot to drop",
                    )
                if active_pid != b"0":
                    raise _in_use(name, f" (pid {int(active_pid or 0)})")
            Slot(connection.pgconn, name).drop()
    except errors.ObjectInUse:
        raise _in_use(name) from None
    except psycopg.Error as error:
        raise OperatorError(str(with_remedy(error))) from None
    return f"dropped the replication slot {name}" if rows else f"there is no replication slot {name}"


def _in_use(name: str, who: str = "") -> OperatorError:
    return OperatorError(
        f"somebody reads the replication slot {name}{who}", "stop every listener first: supervisorctl stop listener"
    )
