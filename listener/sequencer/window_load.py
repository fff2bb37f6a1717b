"""Reads the stream's last events, newest first, for a replay window (rule 4 of docs/numbering.md)."""

from listener.sequencer.event_window import EventWindow
from listener.sequencer.process_state import BufferSize
from listener.sequencer.redis_requests import ReadRecent, StreamEntry
from notifymux.event import EventId
from notifymux.page_size import PageSize


class WindowLoad:
    """The reading of one epoch's last events, page by page.

    Args:
        epoch: the epoch.
        limits: of the window. The first event always fits.
    """

    def __init__(self, epoch: int, limits: BufferSize) -> None:
        self.head: EventId | None = None  # the stream's last entry when the reading began; None for none
        self.is_complete = False
        self._epoch, self._limits = epoch, limits
        self._page, self._is_begun = PageSize(), False
        self._newest_first: list[bytes] = []
        self._bytes = 0

    @property
    def request(self) -> ReadRecent:
        """The next page's."""
        return ReadRecent(self._page.entries, self._next if self._newest_first else None)

    @property
    def _next(self) -> EventId:
        """The entry that precedes all that was read."""
        sequence = self.head.sequence if self.head else 0
        return EventId(self._epoch, sequence - len(self._newest_first))

    def read(self, limit: int, newest_first: list[StreamEntry]) -> None:
        """Take a page, which was to have `limit` entries."""
        if not self._is_begun:
            self._is_begun, self.head = True, newest_first[0].id if newest_first else None
        self._page.learn([len(entry.text) for entry in newest_first])
        self.is_complete = len(newest_first) < limit
        for entry in newest_first:
            is_full = len(self._newest_first) >= self._limits.events or self._bytes >= self._limits.bytes
            if entry.id != self._next or is_full:
                self.is_complete = True
                break
            self._newest_first.append(entry.text)
            self._bytes += len(entry.text)

    @property
    def has_events(self) -> bool:
        """Whether the stream ended with events of the epoch."""
        return bool(self._newest_first)

    def window(self, end: int) -> EventWindow:
        """Return a window of what was read before the sequence `end`."""
        window = EventWindow(self._next.sequence + 1)
        for text in reversed(self._newest_first):
            if window.next < end:  # the stream may be ahead of what was received
                window.append(text)
        return window
