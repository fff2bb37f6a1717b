"""Statistics of the events that a worker's source delivers."""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

from app.core.canary import Canary, read_canary
from app.core.clock_difference import ClockDifference, PlausibleLatency
from app.core.incident_log import Incidents, Kind
from app.monitoring.recent_events import RecentEvents
from app.monitoring.time_series import RecentSamples, TimeSeries
from app.sources.base import EventSink
from notifymux.event import MUX_CHANNEL, Event, EventId
from notifymux.sequence_tracker import GapReason

logger = logging.getLogger(__name__)

_MAX_NEW_SAMPLES = 1000


class Latency(NamedTuple):
    """What one canary measured, in seconds: from NOTIFY to this worker, and the part after the listener."""

    end_to_end: float
    listener_to_worker: float


class Verified(NamedTuple):
    """The last token of `python -m listener verify` that was received, and when, in Unix seconds."""

    token: str
    at: float


class EventStats:
    """A sink that counts and times events and passes them on: to `sink`, and to `recent_events` if it has watchers.

    Args:
        sink: receives everything.
        recent_events: for the status page.
        sends_canaries: whether the canaries are this process's own, as in PostgreSQL mode.
    """

    def __init__(self, sink: EventSink, recent_events: RecentEvents, *, sends_canaries: bool = False) -> None:
        self._sink, self.recent_events = sink, recent_events
        # Set in PostgreSQL mode; in Redis mode the listeners compare their clocks with PostgreSQL's.
        self.clock = ClockDifference(logger, "this worker") if sends_canaries else None
        self._whole_path, self._first_hop, self._last_hop = PlausibleLatency(), PlausibleLatency(), PlausibleLatency()
        self.events = 0  # without those on the project's own channel
        self.gaps: Counter[GapReason] = Counter()
        self.incidents = Incidents()
        self.time_series = TimeSeries()
        self.end_to_end, self.pg_to_listener = RecentSamples(), RecentSamples()
        self.listener_to_worker = RecentSamples()
        self.new_samples: deque[Latency] = deque(maxlen=_MAX_NEW_SAMPLES)  # the metrics remove what they have observed
        self.canary, self.canary_at = Canary(), 0.0  # the last one, and when it was received, on the monotonic clock
        self.verified: Verified | None = None
        self.verify_requested = asyncio.Event()  # set when there is a new token

    def start(self, position: EventId | None, recent: Sequence[Event]) -> None:
        """Pass the start on."""
        self._sink.start(position, recent)

    def deliver(self, events: Sequence[Event]) -> None:
        """Count events and pass them on."""
        ours = [event for event in events if event.channel == MUX_CHANNEL]
        for event in ours:
            self._read(event)
        self.events += len(events) - len(ours)
        if self.recent_events.watchers:
            self.recent_events.add([event for event in events if event.channel != MUX_CHANNEL] if ours else events)
        self._sink.deliver(events)

    def gap(self, position: EventId | None, why: GapReason) -> None:
        """Count a gap and pass it on."""
        self.gaps[why] += 1
        if why is not GapReason.EPOCH:  # the listener that starts an epoch logs it
            self.incidents.add(Kind.GAP, why, time.monotonic())
        self._sink.gap(position, why)

    def sample(self) -> None:
        """Add the current second to the time series; to be called once a second."""
        self.time_series.sample(self.events, time.time())

    def _read(self, event: Event) -> None:
        """Read a canary or a token from an event on the project's own channel."""
        canary = read_canary(bytes(event.payload))
        now = time.time()
        if canary.verify:
            self.verified = Verified(canary.verify, now)
            self.verify_requested.set()
        if canary.sent is not None and event.at is not None:
            self._measure(canary.sent, event.at, now)
            if self.clock:
                self.clock.observe(canary, now)
            self.canary, self.canary_at = canary, time.monotonic()

    def _measure(self, sent: float, at: float, now: float) -> None:
        whole = self._whole_path.check(now - sent)
        first, last = self._first_hop.check(at - sent), self._last_hop.check(now - at)
        monotonic = time.monotonic()
        if whole is not None:
            self.time_series.add_latency(whole)
            self.end_to_end.add(whole, monotonic)
        if first is not None:
            self.pg_to_listener.add(first, monotonic)
        if last is not None:
            self.listener_to_worker.add(last, monotonic)
        if whole is not None and last is not None:
            self.new_samples.append(Latency(whole, last))
