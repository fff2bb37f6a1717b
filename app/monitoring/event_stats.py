"""What passes from a worker's source to its hub, counted and timed on the way."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

from app.core.canary import MUX_CHANNEL, Canary, read_canary
from app.core.incident_log import Incidents, Kind
from app.monitoring.recent_events import RecentEvents
from app.monitoring.time_series import RecentSamples, TimeSeries
from app.sources.base import EventSink, GapReason
from notifymux.event import Event, EventId


class Latency(NamedTuple):
    """What one canary measured, in seconds: from NOTIFY to here, and of that the last hop."""

    whole: float
    last_hop: float


class Verified(NamedTuple):
    """The last token of `python -m listener verify` that was heard, and when, in Unix seconds."""

    token: str
    at: float


class EventStats:
    """A sink before the sink.

    Args:
        sink: where everything goes.
        tail: keeps events while somebody watches.
    """

    def __init__(self, sink: EventSink, tail: RecentEvents) -> None:
        self._sink, self.tail = sink, tail
        self.events = 0  # our own channel's don't count
        self.gaps: Counter[GapReason] = Counter()
        self.incidents = Incidents()
        self.timeline = TimeSeries()
        self.whole, self.first_hop, self.last_hop = RecentSamples(), RecentSamples(), RecentSamples()
        self.fresh: deque[Latency] = deque(maxlen=1000)  # measurements that nobody has taken yet
        self.canary, self.canary_at = Canary(), 0.0  # the last one, and when it was heard, on the monotonic clock
        self.verified: Verified | None = None
        self.asked = asyncio.Event()  # set when there is a new token

    def start(self, position: EventId | None, recent: Sequence[Event]) -> None:
        """Passes it on."""
        self._sink.start(position, recent)

    def deliver(self, events: Sequence[Event]) -> None:
        """Counts events and passes them on."""
        ours = [event for event in events if event.channel == MUX_CHANNEL]
        for event in ours:
            self._hear(event)
        self.events += len(events) - len(ours)
        if self.tail.watched:
            self.tail.note([event for event in events if event.channel != MUX_CHANNEL] if ours else events)
        self._sink.deliver(events)

    def gap(self, position: EventId | None, why: GapReason) -> None:
        """Notes a gap and passes it on."""
        self.gaps[why] += 1
        if why is not GapReason.EPOCH:  # whoever began it says so
            self.incidents.note(Kind.GAP, why, time.monotonic())
        self._sink.gap(position, why)

    def tick(self) -> None:
        """To be called once a second."""
        self.timeline.tick(self.events, time.time())

    def _hear(self, event: Event) -> None:
        canary = read_canary(bytes(event.payload))
        now = time.time()
        if canary.verify:
            self.verified = Verified(canary.verify, now)
            self.asked.set()
        if canary.sent is not None and event.at is not None:
            self._measure(canary.sent, event.at, now)
            self.canary, self.canary_at = canary, time.monotonic()

    def _measure(self, sent: float, at: float, now: float) -> None:
        # Between two machines their clocks are measured too; a latency is never negative.
        latency = Latency(max(0.0, now - sent), max(0.0, now - at))
        monotonic = time.monotonic()
        self.timeline.latency(latency.whole)
        self.whole.add(latency.whole, monotonic)
        self.first_hop.add(max(0.0, at - sent), monotonic)
        self.last_hop.add(latency.last_hop, monotonic)
        self.fresh.append(latency)
