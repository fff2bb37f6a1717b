"""What a listener has done since its process started, and how long its canaries take."""

import logging
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from app.core.canary import read_canary
from app.core.clock_difference import ClockDifference
from app.core.incident_log import Incidents
from notifymux.event import MUX_CHANNEL

logger = logging.getLogger(__name__)


class Received(Protocol):
    """A notification, or a message out of the WAL."""

    @property
    def channel(self) -> str:
        """Its channel."""

    @property
    def payload(self) -> bytes:
        """Its payload, UTF-8."""


class ListenerStats:
    """Counters of events, and the incidents that wait to be written to the incident log."""

    def __init__(self) -> None:
        self.received = 0  # notifications that PostgreSQL delivered
        self.added = 0  # events that this listener appended and published
        self.suppressed = 0  # events that another listener had appended already
        self.restored = 0  # events put back into the stream, without being published again
        self.dropped = 0  # events of a buffer that was full
        self.failovers = 0  # times that this listener had to append as a standby
        self.epochs = 0  # epochs that this listener began
        self.incidents = Incidents()


class RoundTripTimer:
    """Measures how long a canary takes through PostgreSQL and back, one at a time. Times are Unix seconds."""

    def __init__(self) -> None:
        self.last: float | None = None  # seconds
        self.new_samples: deque[float] = deque(maxlen=100)  # seconds; the metrics remove them
        self.clock = ClockDifference(logger, "this listener")
        self._token = b""
        self._sent_at = 0.0

    def sent(self, token: str, at: float) -> None:
        """Record that a canary was sent."""
        self._token, self._sent_at = f'"{token}"'.encode(), at

    def received(self, received: Iterable[Received], at: float) -> None:
        """Look for the canary in what a session has received."""
        if not self._token:
            return
        for each in received:
            if each.channel == MUX_CHANNEL and self._token in each.payload:
                self.last = max(0.0, at - self._sent_at)
                self.new_samples.append(self.last)
                self.clock.observe(read_canary(each.payload), at)
                self._token = b""

    def session_lost(self) -> None:
        """Forget the canary that was sent on a lost session, and the last measurement."""
        self._token, self.last = b"", None
