"""A worker's metrics. They are updated once a second from plain counters, and with what canaries measured."""

import math
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.core.metrics import LATENCY_BUCKETS_SECONDS, LOCK_WAIT_SECONDS, LOCK_WAITERS, CounterSync
from app.monitoring.refusals import Cause, refusals
from app.monitoring.worker_report import RightsCounts, WorkerState
from notifymux.sequence_tracker import GapReason


class WorkerMetrics:
    """The metrics of one worker, in a registry of its own; `slot` is the replication slot that the listeners read."""

    def __init__(self, worker: WorkerState, version: str, slot: str | None = None) -> None:
        self._worker = worker
        self._sync = CounterSync()
        self.registry = registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"notifymux_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, over_workers: str) -> Gauge:
            return Gauge(f"notifymux_{name}", about, registry=registry, multiprocess_mode=over_workers)  # type: ignore[arg-type]

        def histogram(name: str, about: str) -> Histogram:
            return Histogram(f"notifymux_{name}_seconds", about, registry=registry, buckets=LATENCY_BUCKETS_SECONDS)

        self._events = counter("worker_events", "Events that workers received, each worker's counted.")
        self._suppressed = counter(
            "worker_events_suppressed", "Events that were received again and not delivered again."
        )
        self._unroutable = counter(
            "worker_events_unroutable", "Events that no client heard: they name no match.", "channel", "cause"
        )
        self._gaps = counter("worker_gaps", "Gaps that workers announced to their clients.", "cause")
        self._reconnects = counter("worker_reconnects", "Outages of a worker's server that ended.", "server")
        self._slow_closes = counter("slow_closes", "Clients closed because they were too slow.")
        self._refusals = counter("refused", "Connections and requests that were refused.", "cause")
        self._resumes = counter("resumes", "Clients that reconnected with a last event id.", "outcome")
        self._snapshots = counter("snapshot_queries", "Snapshot queries that were run.")
        self._failed_snapshots = counter("snapshot_failures", "Snapshot queries that failed or timed out.")
        self._waiting_snapshots = gauge("snapshots_waiting", "Matches that wait for their snapshot query.", "livesum")
        self._snapshot_wait = gauge("snapshot_wait_seconds", "How long the first of them has waited.", "livemax")
        self._queries = counter("row_queries", "Queries for updates that were run.")
        self._failed_queries = counter("row_query_failures", "Queries for updates that failed or took too long.")
        self._merged = counter("updates_merged", "Updates that a newer one covers, before their query began.")
        self._overflows = counter("update_overflows", "Times that too many updates of a match waited for queries.")
        self._waiting = gauge("updates_waiting", "Updates that wait for queries.", "livesum")
        self._rights = counter("authorize_queries", "Queries for clients' rights that were run.")
        self._failed_rights = counter("authorize_failures", "Queries for clients' rights that failed or took too long.")
        self._withdrawn = counter("rights_closes", "Clients closed: revoked, or unchecked for too long.", "cause")
        self._waiting_rights = gauge("authorize_waiting", "Queries for clients' rights that wait.", "livesum")
        self._clients = gauge("clients", "Clients that are connected.", "livesum")
        self._queue_bytes = gauge("client_queue_bytes", "Bytes that are queued for clients.", "livesum")
        self._fed = gauge("fed", "1 if every worker is fed by its pod's listener.", "livemin")
        self._ready = gauge("ready", "1 if every worker is ready, as /readyz says.", "livemin")
        self._canary_age = gauge("canary_age_seconds", "Since the last canary, of the worst worker.", "livemax")
        self._latency = histogram("latency", "From NOTIFY to a worker, measured by canaries.")
        self._last_hop = histogram("last_hop", "From the listener to a worker, measured by canaries.")
        self._listening = gauge("postgres_listen_connections", "Sessions that LISTEN.", "livemostrecent")
        self._connections = gauge("postgres_connections", "Clients' sessions.", "livemostrecent")
        self._max_connections = gauge("postgres_max_connections", "max_connections.", "livemostrecent")
        self._queue_usage = gauge("postgres_queue_usage_ratio", "How full the queue is, 0 to 1.", "livemostrecent")
        # In Redis mode only the listener knows, and has the same metrics (`listener.metrics`).
        if worker.mode == "postgres":
            self._lock_waiters = gauge(*LOCK_WAITERS, "livemax")
            self._lock_wait = gauge(*LOCK_WAIT_SECONDS, "livemax")
        # Only a worker still has it when no listener runs: PostgreSQL keeps WAL for as long as nothing comes through.
        self._slot_silence: Gauge | None = None
        if slot:
            self._slot_silence = gauge("slot_silent_seconds", "Since a canary came by the slot.", "livemin")
        self._build = Gauge(
            "notifymux_build_info",
            "1; the version and the mode are labels.",
            ("version", "mode"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._build.labels(version, worker.mode).set(1)
        self._started = time.monotonic()
        self.update()

    def update(self) -> None:
        """Update all metrics; to be called once a second."""
        report, sync = self._worker.report(), self._sync
        sync(self._events, report.events)
        sync(self._suppressed, report.source.suppressed)
        for unroutable in report.unroutable:
            sync(self._unroutable.labels(unroutable.channel, unroutable.cause), unroutable.events)
        for reason in GapReason:
            sync(self._gaps.labels(reason.name.lower()), report.gaps[reason])
        sync(self._reconnects.labels(report.mode), report.source.reconnects)
        sync(self._slow_closes, report.slow_closes)
        for cause in Cause:
            sync(self._refusals.labels(cause), refusals.counts[cause])
        sync(self._resumes.labels("recovered"), report.recovered)
        sync(self._resumes.labels("snapshot"), report.restarted)
        sync(self._snapshots, report.snapshots)
        sync(self._failed_snapshots, report.failed_snapshots)
        self._waiting_snapshots.set(report.waiting_snapshots)
        self._snapshot_wait.set(report.oldest_snapshot_wait)
        sync(self._queries, report.queries.run)
        sync(self._failed_queries, report.queries.failed)
        sync(self._merged, report.queries.merged)
        sync(self._overflows, report.queries.overflows)
        self._waiting.set(report.queries.waiting)
        self._update_rights(report.rights)
        self._clients.set(report.clients)
        self._queue_bytes.set(report.queue_bytes)
        self._fed.set(report.source.is_fed)
        self._ready.set(not self._worker.unready())
        silence = time.monotonic() - (report.source.canary_at or self._started)
        self._canary_age.set(silence)
        if self._slot_silence:
            self._slot_silence.set(silence)
        if report.mode == "postgres":
            self._lock_waiters.set(report.source.lock_wait.sessions)
            self._lock_wait.set(report.source.lock_wait.seconds)
        self._update_canaries()

    def _update_rights(self, rights: RightsCounts) -> None:
        self._sync(self._rights, rights.asked)
        self._sync(self._failed_rights, rights.failed)
        self._sync(self._withdrawn.labels("revoked"), rights.revoked)
        self._sync(self._withdrawn.labels("unchecked"), rights.unchecked)
        self._waiting_rights.set(rights.waiting)

    def _update_canaries(self) -> None:
        new_samples = self._worker.event_stats.new_samples
        while new_samples:
            latency = new_samples.popleft()
            self._latency.observe(latency.end_to_end)
            if self._worker.mode == "redis":
                self._last_hop.observe(latency.listener_to_worker)
        canary = self._worker.last_canary
        self._listening.set(_known(canary.listening))
        self._connections.set(_known(canary.connections))
        self._max_connections.set(_known(canary.max_connections))
        self._queue_usage.set(_known(canary.queue))


def _known(value: float | None) -> float:
    return math.nan if value is None else value
