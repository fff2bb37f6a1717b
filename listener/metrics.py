"""A listener's Prometheus metrics, updated once a second from `ListenerStats`."""

import time
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.core.metrics import LATENCY_BUCKETS_SECONDS, LOCK_WAIT_SECONDS, LOCK_WAITERS, CounterSync
from listener.forwarder import ForwarderStatus
from listener.reserves import RESERVE
from listener.slot_state import SlotState
from listener.stats import ListenerStats, RoundTripTimer

_COUNTERS = {
    "received": ("notifications_received", "Notifications that PostgreSQL delivered."),
    "added": ("events_appended", "Events that this listener appended to the stream and published."),
    "suppressed": ("events_suppressed", "Events that another listener had appended already."),
    "restored": ("events_restored", "Events put back into a stream that had lost them."),
    "dropped": ("events_given_up", "Events dropped from a full buffer."),
    "failovers": ("failovers", "Times that a standby had to append."),
    "epochs": ("epochs", "Epochs that this listener began, each a gap to every client."),
}  # by the name in `ListenerStats`


class ListenerMetrics:
    """The metrics of one listener.

    Args:
        stats: its counters.
        round_trip: its canaries' times; they are removed when they are observed.
        reads_slot: whether its source is a replication slot.
    """

    def __init__(self, stats: ListenerStats, round_trip: RoundTripTimer, *, reads_slot: bool) -> None:
        self._stats, self._round_trips = stats, round_trip.new_samples
        self._sync = CounterSync()
        registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"notifymux_listener_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(f"notifymux_listener_{name}", about, registry=registry, multiprocess_mode="livesum")

        self._counters = {name: counter(*about) for name, about in _COUNTERS.items()}
        self._reconnects = counter("reconnects", "Outages of a server that ended.", "server")
        self._buffered_events = gauge("buffered_events", "Events that are not in the stream yet.")
        self._buffered_bytes = gauge("buffered_bytes", "The same in bytes.")
        self._connected = gauge("connected", "Listeners of this pod that receive notifications.")
        self._reserves = gauge("reserves", "Listeners of this pod that hold no session, because enough others do.")
        self._lock_waiters, self._lock_wait = (
            Gauge(f"notifymux_{name}", about, registry=registry, multiprocess_mode="livemax")
            for name, about in (LOCK_WAITERS, LOCK_WAIT_SECONDS)
        )
        self._round_trip = Histogram(
            "notifymux_listener_round_trip_seconds",
            "From NOTIFY to the listener, by canaries.",
            registry=registry,
            buckets=LATENCY_BUCKETS_SECONDS,
        )
        self._slot = _SlotMetrics(registry) if reads_slot else None

    def update(self, status: ForwarderStatus) -> None:
        """Update all metrics from the forwarder's state; to be called once a second."""
        for name, metric in self._counters.items():
            self._sync(metric, getattr(self._stats, name))
        for server, times in status.reconnects.items():
            self._sync(self._reconnects.labels(server), times)
        self._buffered_events.set(status.sequencer.buffered)
        self._buffered_bytes.set(status.sequencer.buffered_bytes)
        self._connected.set(status.connected_since is not None)
        self._reserves.set(status.sequencer.role == RESERVE)
        self._lock_waiters.set(status.lock_wait.sessions)
        self._lock_wait.set(status.lock_wait.seconds)
        if self._slot:
            self._slot.update(status.slot)
        while self._round_trips:
            self._round_trip.observe(self._round_trips.popleft())


class _SlotMetrics:
    """Gauges of the replication slot, each 0 while this listener does not read it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, about: str, over_listeners: Literal["livesum", "livemax"] = "livemax") -> Gauge:
            return Gauge(f"notifymux_listener_slot_{name}", about, registry=registry, multiprocess_mode=over_listeners)

        self._readers = gauge("readers", "Listeners of this pod that read the slot.", "livesum")
        self._retained = gauge("retained_bytes", "WAL that PostgreSQL keeps for the slot.")
        self._unmoved = gauge("unmoved_seconds", "Since the slot's confirmed position moved.")
        self._in_danger = gauge("in_danger", "1 if PostgreSQL is about to give the slot up, or has.")

    def update(self, slot: SlotState | None) -> None:
        """Update them; `slot` is None without a session that reads it."""
        self._readers.set(slot is not None)
        self._retained.set(slot.retained_bytes if slot else 0)
        self._unmoved.set(max(0.0, time.time() - slot.confirmed_since) if slot else 0)
        self._in_danger.set(slot.is_in_danger if slot else 0)
