"""A listener's Prometheus metrics, updated once a second from `ListenerStats`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.core.metrics import LATENCY_BUCKETS_SECONDS, LOCK_WAIT_SECONDS, LOCK_WAITERS, CounterSync
from listener.forwarder import ForwarderStatus
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
    """

    def __init__(self, stats: ListenerStats, round_trip: RoundTripTimer) -> None:
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

    def update(self, status: ForwarderStatus) -> None:
        """Update all metrics from the forwarder's state; to be called once a second."""
        for name, metric in self._counters.items():
            self._sync(metric, getattr(self._stats, name))
        for server, times in status.reconnects.items():
            self._sync(self._reconnects.labels(server), times)
        self._buffered_events.set(status.sequencer.buffered)
        self._buffered_bytes.set(status.sequencer.buffered_bytes)
        self._connected.set(status.connected_since is not None)
        self._lock_waiters.set(status.lock_wait.sessions)
        self._lock_wait.set(status.lock_wait.seconds)
        while self._round_trips:
            self._round_trip.observe(self._round_trips.popleft())
