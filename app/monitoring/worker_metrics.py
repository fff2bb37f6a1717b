"""A worker's metrics. They are fed once a second from plain counters, and with what canaries measured."""

import math
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.core.metrics import CounterSync
from app.monitoring.worker_report import WorkerState
from app.sources.base import GapReason

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class WorkerMetrics:
    """One worker's.

    Args:
        manager: whose they are.
        version: the program's.
    """

    def __init__(self, manager: WorkerState, version: str) -> None:
        self._manager = manager
        self._feed = CounterSync()
        self.registry = registry = CollectorRegistry()
        self._server = "redis" if manager.mode == "redis" else "postgres"

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"notifymux_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, over_workers: str) -> Gauge:
            return Gauge(f"notifymux_{name}", about, registry=registry, multiprocess_mode=over_workers)  # type: ignore[arg-type]

        def histogram(name: str, about: str) -> Histogram:
            return Histogram(f"notifymux_{name}_seconds", about, registry=registry, buckets=_SECONDS)

        self._events = counter("worker_events", "Events that workers heard, each worker's counted.")
        self._suppressed = counter("worker_events_suppressed", "Events that came again and were not delivered again.")
        self._gaps = counter("worker_gaps", "Breaks that workers announced to their clients.", "cause")
        self._reconnects = counter("worker_reconnects", "Outages of a worker's server that ended.", "server")
        self._slow_closes = counter("slow_closes", "Clients closed because they were too slow.")
        self._resumes = counter("resumes", "Clients that came back with a last event id.", "outcome")
        self._snapshots = counter("snapshot_queries", "Snapshot queries that were run.")
        self._failed_snapshots = counter("snapshot_failures", "Of them, those that failed or took too long.")
        self._clients = gauge("clients", "Clients that are connected.", "livesum")
        self._queue_bytes = gauge("client_queue_bytes", "What waits to be sent to clients.", "livesum")
        self._ready = gauge("ready", "1 if every worker is ready, as /readyz says.", "livemin")
        self._canary_age = gauge("canary_age_seconds", "Since a canary came through, of the worst worker.", "livemax")
        self._latency = histogram("latency", "From NOTIFY to a worker, by canaries.")
        self._last_hop = histogram("last_hop", "From the listener to a worker, by canaries.")
        self._listening = gauge("postgres_listen_connections", "Sessions that LISTEN.", "livemostrecent")
        self._connections = gauge("postgres_connections", "Clients' sessions.", "livemostrecent")
        self._max_connections = gauge("postgres_max_connections", "max_connections.", "livemostrecent")
        self._queue_usage = gauge("postgres_queue_usage_ratio", "How full the queue is, 0 to 1.", "livemostrecent")
        self._build = Gauge(
            "notifymux_build_info",
            "1; what runs here.",
            ("version", "mode"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._build.labels(version, manager.mode).set(1)
        self._started = time.monotonic()
        self.update()

    def update(self) -> None:
        """To be called once a second."""
        report, feed = self._manager.report(), self._feed
        feed(self._events, report.events)
        feed(self._suppressed, report.suppressed)
        for cause in GapReason:
            feed(self._gaps.labels(cause.name.lower()), report.gaps[cause])
        feed(self._reconnects.labels(self._server), report.reconnects)
        feed(self._slow_closes, report.slow_closes)
        feed(self._resumes.labels("recovered"), report.recovered)
        feed(self._resumes.labels("snapshot"), report.restarted)
        feed(self._snapshots, report.snapshots)
        feed(self._failed_snapshots, report.failed_snapshots)
        self._clients.set(report.clients)
        self._queue_bytes.set(report.queue_bytes)
        self._ready.set(not self._manager.unready())
        self._update_canaries()

    def _update_canaries(self) -> None:
        observer, now = self._manager.observer, time.monotonic()
        while observer.fresh:
            latency = observer.fresh.popleft()
            self._latency.observe(latency.whole)
            if self._manager.mode == "redis":
                self._last_hop.observe(latency.last_hop)
        self._canary_age.set(now - (self._manager.canary_at or self._started))
        canary = self._manager.last_canary
        self._listening.set(_known(canary.listening))
        self._connections.set(_known(canary.connections))
        self._max_connections.set(_known(canary.max_connections))
        self._queue_usage.set(_known(canary.queue))


def _known(value: float | None) -> float:
    return math.nan if value is None else value
