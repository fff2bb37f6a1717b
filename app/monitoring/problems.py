"""What is wrong, one line each, for people."""

from collections.abc import Iterable

from app.monitoring.process_list import ProcessRow
from notifymux.event import EventId

_SOME = 100  # events that nobody calls a delay
_FULL = 0.5  # of PostgreSQL's queue


def of_listeners(listeners: Iterable[ProcessRow]) -> list[str]:
    """Which listeners don't do what they should."""
    rows = list(listeners)
    problems = [] if any(row["state"] == "alive" for row in rows) else ["no listener is alive"]
    for row in rows:
        if row["lock_waiters"]:
            problems.append(
                f"{row['lock_waiters']} sessions wait for the notification lock, the first for {row['lock_seconds']:.0f} s"
            )
        if row["passive"]:
            problems.append(f"listener {_name(row)} is {row['passive']}")
        match row["state"], row["role"]:
            case "late" | "dead", _:
                problems.append(f"listener {_name(row)} is silent")
            case "alive", "unconnected":
                problems.append(f"listener {_name(row)} is not connected to PostgreSQL: {row['outage']}")
            case "alive", "unaligned":
                problems.append(f"listener {_name(row)} is looking for its place in the count")
    return problems


def of_queue(usage: float | None) -> list[str]:
    """Whether PostgreSQL's queue of notifications fills; `usage` is from 0 to 1."""
    if usage is None or usage <= _FULL:
        return []
    return [f"PostgreSQL's queue of notifications is {usage:.0%} full: a session that LISTENs does not read"]


def of_delays(listeners: Iterable[ProcessRow], lag: int, rate: float, *, behind: bool) -> list[str]:
    """Where events wait.

    Args:
        listeners: all.
        lag: events by which this worker is behind the stream, as it was a second ago.
        rate: events a second.
        behind: whether this worker knows that it is behind.
    """
    much = _SOME + rate
    delays = [f"catching up: this worker is {lag} events behind"] if lag > (0 if behind else much) else []
    return delays + [
        f"catching up: listener {_name(row)} holds {row['buffered']} events"
        for row in listeners
        if row["state"] == "alive" and row["buffered"] > much
    ]


def lag(position: str | None, head: str | None) -> int:
    """How many events a worker at `position` is behind the stream's head; 0 where that can't be said."""
    if position is None or head is None:
        return 0
    at, end = EventId.parse(position), EventId.parse(head)
    return max(0, end.sequence - at.sequence) if at.epoch == end.epoch else 0


def _name(row: ProcessRow) -> str:
    return f"{row['pod']}/{row['program']}"
