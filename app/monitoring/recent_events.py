"""The last events, for who watches. While nobody does, nothing is kept."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from app.broadcast.router import Router
from notifymux.event import Event

_KEPT = 1000  # events
_SHOWN = 50  # of them, at most, in one look
_MOST_PAYLOAD = 500  # characters


class EventsPage(NamedTuple):
    """What came since the last look: the newest events, oldest first, and how many more are not shown."""

    events: list[dict[str, Any]]
    skipped: int
    mark: int  # from where the next look goes on


class RecentEvents:
    """Keeps events by reference, and reads into them only when somebody looks.

    Args:
        router: tells an event's match.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._watchers = 0
        self.watched = False
        self.mark = 0  # events noted so far

    @contextmanager
    def watch(self) -> Iterator[int]:
        """Has events kept for as long as the context lasts; gives the mark to look from."""
        self._watchers += 1
        self.watched = True
        try:
            yield self.mark
        finally:
            self._watchers -= 1
            if not self._watchers:
                self.watched = False
                self._events.clear()

    def note(self, events: Sequence[Event]) -> None:
        """Takes in the next events; to be called only while it is watched."""
        self._events.extend(events)
        self.mark += len(events)

    def look(self, mark: int, channel: str | None = None, match: str | None = None) -> EventsPage:
        """What came since `mark`, of one channel and one match if they are given.

        What is not kept any more counts as skipped, whatever it was.
        """
        came = self.mark - mark
        kept = list(self._events)[max(0, len(self._events) - came) :] if came else []
        found = [event for event in kept if channel in (None, event.channel)]
        if match is not None:
            found = [event for event in found if self._match(event) == match]
        shown = found[-_SHOWN:]
        return EventsPage([self._show(event) for event in shown], came - len(kept) + len(found) - len(shown), self.mark)

    def _match(self, event: Event) -> str | None:
        update = self._router.route(event)
        return update.match if update else None

    def _show(self, event: Event) -> dict[str, Any]:
        payload = bytes(event.payload).decode(errors="replace")
        return {
            "at": event.at,
            "id": event.id,
            "channel": event.channel,
            "match": self._match(event),
            "payload": payload[:_MOST_PAYLOAD],
        }
