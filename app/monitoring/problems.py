"""What is wrong, one line per problem, for people."""

from collections.abc import Iterable

from app.core.postgres_connect import LockWait
from app.core.session_health import describe
from app.monitoring.process_list import ProcessRow
from notifymux.event import EventId

_LAG_TOLERANCE_EVENTS = 100
_QUEUE_WARNING_RATIO = 0.5


def listeners(rows: Iterable[ProcessRow]) -> list[str]:
    """Return the problems of the listeners."""
    rows = list(rows)
    found = [] if any(row["state"] == "alive" for row in rows) else ["no listener is alive"]
    for row in rows:
        match row["state"], row["role"]:
            case "late" | "dead", _:
                found.append(f"listener {_name(row)} is silent")
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
