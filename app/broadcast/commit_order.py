"""Updates of several topics in the one order in which they were committed."""

from collections.abc import Iterable, Sequence
from operator import itemgetter

from app.broadcast.messages import Update
from notifymux.event import EventId

_BEFORE_ALL = EventId(0, 0)


def in_commit_order(parts: Iterable[Sequence[Update]]) -> list[Update]:
    """Merge updates, of which each part is in order. One of several topics may be in several parts, and is there once.

    By ids, since copies that were read from the stream have no serial number. One without an id stays behind the one
    that is before it in its part; where there are no ids at all, serial numbers tell.
    """
    keyed: list[tuple[tuple[EventId, int], Update]] = []
    seen: set[EventId | int] = set()
    for part in parts:
        at = _BEFORE_ALL
        for update in part:
            at = update.parsed_id or at
            name = update.parsed_id or update.serial
            if name in seen:
                continue
            seen.add(name)
            keyed.append(((at, update.serial), update))
    keyed.sort(key=itemgetter(0))
    return [update for _, update in keyed]
