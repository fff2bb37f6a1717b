"""Whether a worker follows the feed of its pod's listener (rule 15 of docs/numbering.md).

This is a state machine without I/O and without a clock; times are seconds on any monotonic clock.
"""

from collections.abc import Sequence
from itertools import groupby

import msgspec

from notifymux.event import Event, EventId, decode, decode_all
from notifymux.progress_timeout import TAKEOVER_TIMEOUT_SECONDS
from notifymux.sequence_tracker import Outcome, SequenceTracker

_LOOK_SECONDS = 0.25  # from one look at the stream's last entry to the next
_LOOK_AGAIN_SECONDS = 0.1  # the same after a look that found what the feed has not brought
_LOOKS_BEHIND = 8  # in a row, about two seconds, after which the stream is said to lack what was fed


class _Feed(msgspec.Struct):
    position: str | None = None  # the last id; None while nothing is fed


class _Announcement(msgspec.Struct):
    feed: _Feed


class ForeignFeedError(Exception):
    """The feed brings other events than the stream has under the same ids."""


class FeedFollower:
    """Passes on what the feed brings, and decides whether that is all that there is.

    Args:
        tracker: the worker's, which the stream moves too.
    """

    def __init__(self, tracker: SequenceTracker) -> None:
        self._tracker = tracker
        self._expected: Event | None = None  # the first text of a connection has to be this very event
        self._fed: EventId | None = None  # the last id that the feed brought; None while it brings nothing
        self.is_paused = False  # the feed says that it brings nothing
        self.is_behind = False  # the stream has what the feed did not bring
        self._seen_head: EventId | None = None  # at the last look
        self._seen_position: EventId | None = None  # this worker's then
        self._looks_ahead = 0  # in a row, at which the stream lacked what was delivered at the look before
        self._away_since: float | None = None  # since when Redis has not answered
        self._last: Event | None = None  # the last event that was delivered and has an id

    @property
    def is_fed(self) -> bool:
        """Whether the feed brings events."""
        return self._fed is not None

    @property
    def is_followed(self) -> bool:
        """Whether the feed is where the worker is: then the worker need not hear Redis."""
        return self._fed is not None and not self.is_behind and self._fed == self._tracker.position

    def is_wanted(self, now: float) -> bool:
        """Whether there is a place to follow the feed from: this worker's own, or without Redis the feed's."""
        return self._tracker.position is not None or self._is_alone(now)

    def _is_alone(self, now: float) -> bool:
        return self._away_since is not None and now - self._away_since >= TAKEOVER_TIMEOUT_SECONDS

    def connected(self) -> EventId | None:
        """Begin with a new connection; return the id from which on it is to bring texts."""
        self._fed, self._expected, self.is_paused = None, self._last, False
        return self._last.parsed_id if self._last else None

    def lost(self) -> None:
        """The connection is lost, or the feed pauses: from now on the stream is followed."""
        self._fed = None
        self._update()

    def received(self, lines: Sequence[bytes], now: float) -> list[Outcome]:
        """Handle the next lines of the feed, and return what is delivered.

        Raises:
            ForeignFeedError: it brings other events than the stream has.
        """
        try:
            events = [decode(line) for line in lines]
        except ValueError:  # an announcement is no event
            return self._received_mixed(lines, now)
        return self._received_events(events, now)

    def _received_mixed(self, lines: Sequence[bytes], now: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for is_announcement, group in groupby(lines, key=_is_announcement):
            if is_announcement:
                self._announced(list(group)[-1])
            else:
                outcomes += self._received_events(decode_all(group), now)
        return outcomes

    def _received_events(self, events: Sequence[Event], now: float) -> list[Outcome]:
        if not events:
            return []
        self._check(events[0])
        return self._on_fed(events, now)

    def _announced(self, line: bytes) -> None:
        """Handle a line that says what is fed from here on, or that nothing is."""
        try:
            self.is_paused = msgspec.json.decode(line, type=_Announcement).feed.position is None
        except msgspec.DecodeError:
            self.is_paused = True
        if self.is_paused:
            self.lost()

    def _check(self, first: Event) -> None:
        """Check that a new connection brings an event that this worker knows under the id that it has."""
        expected, self._expected = self._expected, None
        if expected is None or first.id != expected.id:
            return
        if (first.channel, first.payload) != (expected.channel, expected.payload):
            raise ForeignFeedError(f"{first.id} names another event")

    def _on_fed(self, events: Sequence[Event], now: float) -> list[Outcome]:
        outcomes = self._tracker.on_fed(events, is_alone=self._is_alone(now))
        self._fed = events[-1].parsed_id
        if self._fed == self._tracker.position:
            self.is_behind = False
        self._update()
        return outcomes

    def delivered(self, events: Sequence[Event]) -> None:
        """Record what was delivered, whichever source brought it."""
        for event in reversed(events):
            if event.id is not None:
                self._last = event
                break
        self._update()

    @property
    def is_stream_behind(self) -> bool:
        """Whether the stream has lacked for two seconds what was fed: no listener can append it."""
        return self._looks_ahead >= _LOOKS_BEHIND

    @property
    def look_seconds(self) -> float:
        """How long after the last look the stream's last id is looked at, while the feed is followed."""
        position, head = self._seen_position, self._seen_head
        is_missing = head is not None and (position is None or position < head)
        return _LOOK_AGAIN_SECONDS if is_missing else _LOOK_SECONDS

    def looked(self, head: EventId | None, *, has_read_all: bool) -> None:
        """Record the stream's last id.

        What the stream had at the last look, and the feed has not brought since, the feed is behind with. If this
        worker has not read all that it was fed (`has_read_all`), then it is the one that is behind, and stays so if it
        reads the stream in place of the feed.
        """
        position, seen = self._tracker.position, self._seen_head
        is_ahead = self._seen_position is not None and (head is None or head < self._seen_position)
        self._looks_ahead = self._looks_ahead + 1 if is_ahead else 0
        self._away_since = None
        self._seen_head, self._seen_position = head, position
        if has_read_all and seen is not None and (position is None or position < seen):
            self.is_behind, self._seen_head = True, None
            self._update()

    def redis_failed(self, now: float) -> None:
        """Record that Redis did not answer."""
        if self._away_since is None:
            self._away_since = now

    def redis_answered(self) -> None:
        """Record that Redis answered."""
        self._away_since = None

    def _update(self) -> None:
        self._tracker.is_fed = self.is_followed


def _is_announcement(line: bytes) -> bool:
    return line.startswith(b'{"feed"')
