"""Updates of several matches in the one order in which they were committed."""

from collections.abc import Iterable, Sequence
from operator import itemgetter

from app.broadcast.messages import Update
from notifymux.event import EventId

_BEFORE_ALL = EventId(0, 0)


def in_commit_order(parts: Iterable[Sequence[Update]]) -> list[Update]:
    """Merge updates, of which each part is in order.

    By ids, since copies that were read from the stream have no serial number. One without an id stays behind the one
    that is before it in its part; where there are no ids at all, serial numbers tell.
    """
    keyed: list[tuple[tuple[EventId, int], Update]] = []
    for part in parts:
        at = _BEFORE_ALL
        for update in part:
            at = update.parsed_id or at
            keyed.append(((at, update.serial), update))
    keyed.sort(key=itemgetter(0))
    return [update for _, update in keyed]
