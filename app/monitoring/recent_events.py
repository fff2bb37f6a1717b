"""The last events, for operators who watch. Nothing is kept while nobody does."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from app.broadcast.router import Router
from notifymux.event import Event

_MAX_EVENTS = 1000
_MAX_PAGE_EVENTS = 50
_MAX_PAYLOAD_CHARACTERS = 500


class EventsPage(NamedTuple):
    """The newest of the events after a cursor, oldest first, and how many of these events are not shown."""

    events: list[dict[str, Any]]
    skipped: int
    cursor: int  # of the next page


class RecentEvents:
    """Keeps references to events. Payloads are read only for a page, where `router` finds an event's match."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self.watchers = 0  # while there are none, events need not be added
        self.cursor = 0  # the number of events added so far

    @contextmanager
    def watch(self) -> Iterator[int]:
        """Have events kept for as long as the context lasts; the value is the cursor to start from."""
        self.watchers += 1
        try:
            yield self.cursor
        finally:
            self.watchers -= 1
            if not self.watchers:
                self._events.clear()

    def add(self, events: Sequence[Event]) -> None:
        """Add the next events; to be called only while there are watchers."""
        self._events.extend(events)
        self.cursor += len(events)

    def since(self, cursor: int, channel: str | None = None, match: str | None = None) -> EventsPage:
        """Return the events after `cursor`, only those of a channel and of a match if these are given.

        Events that are not kept any more count as skipped, whatever their channel and match.
        """
        added = self.cursor - cursor
        kept = list(self._events)[max(0, len(self._events) - added) :] if added else []
        found = [event for event in kept if channel in (None, event.channel)]
        if match is not None:
            found = [event for event in found if self._match(event) == match]
        shown = found[-_MAX_PAGE_EVENTS:]
        skipped = added - len(kept) + len(found) - len(shown)
        return EventsPage([self._show(event) for event in shown], skipped, self.cursor)

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
            "payload": payload[:_MAX_PAYLOAD_CHARACTERS],
        }
