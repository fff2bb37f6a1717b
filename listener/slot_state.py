"""What PostgreSQL shows of the replication slot to the listener that reads it (SOURCE=wal)."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from app.core.postgres import literal

_DANGERS = {"unreserved", "lost"}  # of `wal_status`

# What is wrong, and the remedy.
UNBOUNDED = (
    "max_slot_wal_keep_size is -1: without a reader, PostgreSQL keeps WAL for the slot until its disk is full",
    "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB' (less than what the disk has left), and SELECT pg_reload_conf()",
)
_LOOK = (
    "SELECT coalesce(active_pid, 0), coalesce(wal_status, ''), "
    "coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint, coalesce(confirmed_flush_lsn, '0/0'), "
    "pg_size_bytes(current_setting('max_slot_wal_keep_size')), "
    "coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint, "
    "(SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE application_name LIKE {waiting}) "
    "FROM pg_replication_slots WHERE slot_name = {slot}"
)


class SlotState(NamedTuple):
    """What PostgreSQL showed when it was asked last. Times are Unix seconds."""

    active_pid: int  # of the backend that reads the slot; 0 for nobody
    wal_status: str
    retained_bytes: int  # of WAL that is kept for the slot
    confirmed: str  # the LSN up to which it has forgotten
    max_bytes: int  # max_slot_wal_keep_size; -1 without a limit
    behind_bytes: int  # of WAL, from what is confirmed to the end of the WAL
    waiting: int  # listeners that wait for the slot, and reach Redis
    confirmed_since: float  # since when it has been this LSN, as far as this process knows
    at: float

    @classmethod
    def parse(cls, row: Sequence[str], at: float, last: Self | None) -> Self:
        """The columns of `look_sql` as PostgreSQL prints them; `last` is what was shown before."""
        active_pid, wal_status, retained_bytes, confirmed, *numbers = row
        since = last.confirmed_since if last and last.confirmed == confirmed else at
        max_bytes, behind_bytes, waiting = map(int, numbers)
        kept = int(retained_bytes)
        return cls(int(active_pid), wal_status, kept, confirmed, max_bytes, behind_bytes, waiting, since, at)

    @property
    def is_in_danger(self) -> bool:
        """Whether PostgreSQL is about to give the slot up, or has done so."""
        return self.wal_status in _DANGERS

    def heartbeat_fields(self) -> dict[str, str | int]:
        """The fields of the listener's hash in Redis."""
        times = {"slot_confirmed_since": self.confirmed_since, "slot_at": self.at}
        return {
            "slot_pid": self.active_pid,
            "slot_wal_status": self.wal_status,
            "slot_retained_bytes": self.retained_bytes,
            "slot_confirmed": self.confirmed,
            "slot_max_bytes": self.max_bytes,
            **{name: f"{value:.3f}" for name, value in times.items()},
        }


def look_sql(slot: str, waiting: str) -> str:
    """The query for a slot's state: a row, or none where there is no such slot.

    Args:
        slot: its name.
        waiting: with what the names of the sessions begin that wait for a slot.
    """
    return _LOOK.format(slot=literal(slot), waiting=literal(f"{waiting}%"))
