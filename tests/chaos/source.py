"""What a run expects of each source of events: its faults, and which of them are gaps."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.chaos import faults
from tests.chaos.faults import Target
from tests.chaos.load import CommitOrder
from tests.chaos.wal_order import WalOrder

Fault = Callable[[Target], None]


class Source(NamedTuple):
    """One of the two.

    Args:
        name: the value of SOURCE.
        order: records the commit order.
        faults: by name.
        gaps: those in which the source loses events whatever listeners there are, so that one gap is expected.
        lone_gaps: those in which a gap is expected if there is one listener.
        listen_rows: of a listener in `pg_stat_activity`.
    """

    name: str
    order: type[CommitOrder]
    faults: Mapping[str, Fault]
    gaps: frozenset[str]
    lone_gaps: frozenset[str]
    listen_rows: int

    @property
    def settings(self) -> dict[str, str]:
        """Of listeners and workers."""
        return {"SOURCE": self.name, "USE_REDIS_NOTIFIER": "true"}


_COMMON: dict[str, Fault] = {
    "kill -9": faults.kill,
    "SIGTERM": faults.sigterm,
    "SIGSTOP": faults.freeze,
    "terminate": faults.terminate_session,
    "FLUSHALL": faults.flush_redis,
    "empty Redis": faults.restart_redis_without_data,
    "frozen Redis": faults.freeze_redis,
    "frozen Redis, kill -9": faults.kill_while_redis_is_frozen,
    "slow Redis": faults.slow_redis,
    "restart PostgreSQL": faults.restart_postgres,
    "stalled commits": faults.stall_commits,
    "PostgreSQL fail-over": faults.fail_over_postgres,
    "Redis fail-over": faults.fail_over_redis,
    "cut PostgreSQL": faults.cut_postgres,
    "cut Redis": faults.cut_redis,
    "stall PostgreSQL": faults.stall_postgres,
    "stall Redis": faults.stall_redis,
    "worker kill -9": faults.kill_worker,
    "worker SIGSTOP": faults.freeze_worker,
}
# With NOTIFY these are the same to a listener as other faults are, or as no fault.
_OF_THE_SLOT: dict[str, Fault] = {
    "long SIGSTOP": faults.freeze_for_long,
    "reader terminated": faults.terminate_reader,
    "slot invalidated": faults.invalidate_slot,
    "absent, crash": lambda target: faults.stay_away(target, target.rng.uniform(*faults.DURATION_SECONDS)),
}
# These end every session.
_NOTIFY_GAPS = frozenset({"restart PostgreSQL", "PostgreSQL fail-over"})
# These end the session of one listener.
_NOTIFY_LONE_GAPS = frozenset(
    {"kill -9", "SIGTERM", "SIGSTOP", "terminate", "frozen Redis, kill -9", "cut PostgreSQL", "stall PostgreSQL"}
)

NOTIFY = Source("notify", CommitOrder, _COMMON, _NOTIFY_GAPS, _NOTIFY_GAPS | _NOTIFY_LONE_GAPS, listen_rows=1)
_WAL_GAPS = frozenset({"PostgreSQL fail-over", "slot invalidated"})
WAL = Source("wal", WalOrder, _COMMON | _OF_THE_SLOT, _WAL_GAPS, _WAL_GAPS, listen_rows=0)
SOURCES = {source.name: source for source in (NOTIFY, WAL)}
