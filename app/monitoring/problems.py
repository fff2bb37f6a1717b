"""What is wrong, one line per problem, for people."""

from collections.abc import Iterable

from app.core.postgres_connect import LockWait
from app.core.session_health import describe
from app.monitoring.process_list import ProcessRow, SlotRow
from notifymux.event import EventId

_LAG_TOLERANCE_EVENTS = 100
_QUEUE_WARNING_RATIO = 0.5
_SLOT_WARNING_BYTES = 2**30  # of WAL, without a limit that PostgreSQL knows
_FREE_SLOT = (
    "bring Redis back if it is away, or end the transaction that has been open for longest (SELECT pid, xact_start "
    "FROM pg_stat_activity ORDER BY xact_start)"
)
_RAISE_SLOT_LIMIT = "raise max_slot_wal_keep_size"


def listeners(rows: Iterable[ProcessRow]) -> list[str]:
    """Return the problems of the listeners."""
    rows = list(rows)
    alive = [row["role"] for row in rows if row["state"] == "alive"]
    found = [] if alive else ["no listener is alive"]
    if alive and set(alive) == {"reserve"}:
        found.append("no listener holds a session of PostgreSQL: all that are alive are reserves")
    for row in rows:
        match row["state"], row["role"]:
            case "late" | "dead", _:
                found.append(f"listener {_name(row)} is silent")
            case "alive", "waiting" | "reserve":
                pass  # others are at work; `slot` says it where nobody's listener reads the replication slot
            case "alive", _ if row["passive"]:
                found.append(f"listener {_name(row)} is passive: {row['passive']}")
            case "alive", "unconnected":
                why = f": {row['outage']}" if row["outage"] else ""
                found.append(f"listener {_name(row)} is not connected to PostgreSQL{why}")
            case "alive", _ if row["outage"] and not row["lock_waiters"]:  # else `notification_lock` says it
                found.append(f"listener {_name(row)}: {row['outage']}")
            case "alive", "unaligned":
                found.append(f"listener {_name(row)} is looking for its place in the count")
    return found


def slot(shown: SlotRow | None, rows: Iterable[ProcessRow]) -> list[str]:
    """Return the problems of the replication slot, each with its remedy.

    Args:
        shown: what the listeners say of it; None if none is read.
        rows: the listeners.
    """
    if shown is None:
        return []
    return [_unread_slot(shown, rows)] if shown["reader"] is None else _kept_wal(shown)


def _unread_slot(shown: SlotRow, rows: Iterable[ProcessRow]) -> str:
    rows = list(rows)
    waiting = [row["passive"] for row in rows if row["state"] == "alive" and row["role"] == "waiting"]
    waiting = [reason for reason in waiting if "replication slot" in reason]  # and not for Redis
    if waiting and not any(row["state"] in {"late", "dead"} for row in rows):  # else it is that one, and is taken over
        return f"{waiting[0]}, which is not in this namespace: give each environment a WAL_SLOT of its own"
    return (
        f"no listener reads the replication slot {shown['name']}, and PostgreSQL keeps WAL for it: start a listener, "
        "or drop the slot (python -m listener drop-slot)"
    )


def _kept_wal(shown: SlotRow) -> list[str]:
    name, kept, limit = shown["name"], shown["retained_bytes"] or 0.0, shown["max_bytes"] or 0.0
    is_large = kept > (limit / 2 if limit > 0 else _SLOT_WARNING_BYTES)
    match shown["wal_status"]:
        case "lost":
            return [f"PostgreSQL has given up the replication slot {name}: {_RAISE_SLOT_LIMIT}"]
        case "unreserved":
            return [f"PostgreSQL is about to give up the replication slot {name}: {_FREE_SLOT}, or {_RAISE_SLOT_LIMIT}"]
        case status if is_large or status == "extended":
            return [f"PostgreSQL keeps {kept / 2**20:,.0f} MiB of WAL for the replication slot {name}: {_FREE_SLOT}"]
    return []


def longest_lock_wait(rows: Iterable[ProcessRow]) -> LockWait:
    """Return the longest of the waits for the notification lock that the living listeners see."""
    waits = (LockWait(row["lock_waiters"], row["lock_wait_seconds"]) for row in rows if row["state"] == "alive")
    return max(waits, key=lambda wait: wait.seconds, default=LockWait())


def notification_lock(wait: LockWait) -> list[str]:
    """Return the problem of sessions that wait for the notification lock."""
    return [describe(wait)] if wait.sessions else []


def queue(usage: float | None) -> list[str]:
    """Return the problem of PostgreSQL's notification queue; `usage` is from 0 to 1, None if unknown."""
    if usage is None or usage <= _QUEUE_WARNING_RATIO:
        return []
    return [f"PostgreSQL's queue of notifications is {usage:.0%} full: a session that LISTENs does not read"]


def lag(listeners: Iterable[ProcessRow], events_behind: int, rate: float, *, is_behind: bool) -> list[str]:
    """Return where events are delayed.

    Args:
        listeners: the listeners' rows.
        events_behind: how many events this worker was behind the stream a second ago.
        rate: events a second.
        is_behind: whether this worker knows of events that it has not delivered yet.
    """
    tolerance = _LAG_TOLERANCE_EVENTS + rate
    is_late = events_behind > (0 if is_behind else tolerance)
    delays = [f"catching up: this worker is {events_behind} events behind"] if is_late else []
    return delays + [
        f"catching up: listener {_name(row)} holds {row['buffered']} events"
        for row in listeners
        if row["state"] == "alive" and row["buffered"] > tolerance
    ]


def events_behind(position: EventId | None, head: EventId | None) -> int:
    """Return how many events lie between a worker's position and the stream's head; 0 if that is unknown."""
    if position is None or head is None or position.epoch != head.epoch:
        return 0
    return max(0, head.sequence - position.sequence)


def _name(row: ProcessRow) -> str:
    return f"{row['pod']}/{row['program']}"
