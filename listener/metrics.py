"""A listener's metrics. They are fed once a second from plain counters."""

from collections import deque
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.core.metrics import LATENCY_BUCKETS_SECONDS, CounterSync
from listener.stats import ListenerStats


class ListenerMetrics:
    """One listener's.

    Args:
        tally: counts.
        round_trips: its canaries' times, in seconds, which are taken out.
    """

    def __init__(self, tally: ListenerStats, round_trips: deque[float]) -> None:
        self._tally, self._round_trips = tally, round_trips
        self._feed = CounterSync()
        registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"notifymux_listener_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(f"notifymux_listener_{name}", about, registry=registry, multiprocess_mode="livesum")

        self._received = counter("notifications_received", "Notifications that PostgreSQL delivered.")
        self._added = counter("events_appended", "Events that this listener appended to the stream and published.")
        self._suppressed = counter("events_suppressed", "Events that another listener had appended already.")
        self._restored = counter("events_restored", "Events put back into a stream that had lost them.")
        self._given_up = counter("events_given_up", "Events dropped from a full buffer.")
        self._failovers = counter("failovers", "Times that a standby had to append.")
        self._epochs = counter("epochs", "Times that this listener had everybody count anew, a gap to every client.")
        self._reconnects = counter("reconnects", "Outages of a server that ended.", "server")
        self._buffered_events = gauge("buffered_events", "Events that are held back.")
        self._buffered_bytes = gauge("buffered_bytes", "The same in bytes.")
        self._connected = gauge("connected", "Listeners of this pod that hear PostgreSQL.")
        self._round_trip = Histogram(
            "notifymux_listener_round_trip_seconds",
            "From NOTIFY to the listener, by canaries.",
            registry=registry,
            buckets=LATENCY_BUCKETS_SECONDS,
        )

    def update(self, report: Mapping[str, str | int], reconnects: Mapping[str, int], *, connected: bool) -> None:
        """To be called once a second.

        Args:
            report: what the registry shows.
            reconnects: by server.
            connected: whether PostgreSQL is heard.
        """
        tally, feed = self._tally, self._feed
        feed(self._received, tally.received)
        feed(self._added, tally.added)
        feed(self._suppressed, tally.suppressed)
        feed(self._restored, tally.restored)
        feed(self._given_up, tally.given_up)
        feed(self._failovers, tally.failovers)
        feed(self._epochs, tally.epochs)
        for server, times in reconnects.items():
            feed(self._reconnects.labels(server), times)
        self._buffered_events.set(int(report["buffered"]))
        self._buffered_bytes.set(int(report["buffered_bytes"]))
        self._connected.set(connected)
        while self._round_trips:
            self._round_trip.observe(self._round_trips.popleft())
