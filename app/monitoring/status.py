"""`/api/status`: one worker's view of the whole deployment, as one JSON object."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple

import msgspec

from app.core.heartbeat import RegistryEntry
from app.core.incident_log import LogEntry, log_entry
from app.core.postgres_connect import LockWait
from app.monitoring import problems, process_list
from app.monitoring.clocks import clock_problems, collect_clocks
from app.monitoring.event_stats import EventStats
from app.monitoring.process_list import ProcessRow, SlotRow
from app.monitoring.recent_events import EventsPage
from app.monitoring.time_series import STEP_SECONDS, Bucket
from app.monitoring.worker_registry import MAX_LOG_ENTRIES, RegistrySnapshot, WorkerRegistry
from app.monitoring.worker_report import WorkerReport, WorkerState, milliseconds

_PROBE_SECONDS = 0.5  # that a probe may wait; Kubernetes waits for a second
_SNAPSHOT_SECONDS = 1.2  # from one snapshot of the registry to the next, and a little more


class WorkerInfo(NamedTuple):
    """What does not change while a worker runs."""

    version: str
    embedded: bool
    namespace: str
    pod: str
    pid: int
    uid: str  # unlike any other process's
    started: float  # Unix seconds
    postgres: str | None  # which server, for people
    redis: str | None
    slot: str | None  # the replication slot that the listeners read, if any


class Status:
    """Builds the JSON object. `registry` knows the other processes; it is None in PostgreSQL mode."""

    def __init__(self, info: WorkerInfo, worker: WorkerState, registry: WorkerRegistry | None) -> None:
        self._info, self._worker, self._registry = info, worker, registry
        self._stats = worker.event_stats

    async def refresh(self) -> None:
        """Wait until everything is at most a second old, if Redis answers."""
        if self._registry:
            await self._registry.refresh()

    async def listener_problems(self) -> list[str]:
        """Return what is wrong with Redis, or else with the listeners; nothing that Redis does not tell at once."""
        if self._registry is None:
            return []
        if why := self._registry.refusal or self._registry.outage:
            return [f"Redis refuses, or does not answer: {why}"] if self._worker.is_connected else []
        with suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._registry.refresh()
        if self._registry.outage or self._registry.snapshot is None:
            return []
        listeners = self._listeners()
        found = problems.listeners(listeners) + problems.slot(self._slot(), listeners)
        return found + problems.notification_lock(problems.longest_lock_wait(listeners))

    @contextmanager
    def watch(self, channel: str | None, match: str | None) -> Iterator["Watcher"]:
        """Keep everything at most a second old, and keep the recent events, for as long as the context lasts."""
        refreshed = self._registry.keep_refreshing() if self._registry else nullcontext()
        with refreshed, self._stats.recent_events.watch() as cursor:
            yield Watcher(self, self._stats, channel, match, cursor)

    def message(self, since: int = 0, page: EventsPage | None = None) -> bytes:
        """Return the JSON text, with the buckets of the time series that start after `since`, and a page of events."""
        body = self._body()
        buckets = self._stats.time_series.since(since)
        body["series"] = {"step": STEP_SECONDS, "points": [_point(bucket) for bucket in buckets]}
        body["tail"], body["tail_skipped"] = (page.events, page.skipped) if page else ([], 0)
        return msgspec.json.encode(body)

    def _body(self) -> dict[str, Any]:
        info, worker, report = self._info, self._worker, self._worker.report()
        listeners, workers = self._listeners(), self._workers(report)
        lock_wait = report.source.lock_wait if self._registry is None else problems.longest_lock_wait(listeners)
        postgres, delays = self._postgres(listeners, len(workers), lock_wait), self._delays(listeners, report)
        found = self._problems(listeners, postgres["queue_usage"], lock_wait) + delays
        state = "broken" if worker.broken else "degraded" if found else "healthy"
        return {
            "at": round(time.time(), 3),
            "version": info.version,
            "embedded": info.embedded,
            "namespace": info.namespace,
            "mode": worker.mode,
            "state": state,
            "problems": found,
            "worker": {"pod": info.pod, "pid": info.pid, "uid": info.uid},
            "postgres": postgres,
            "slot": self._slot(),
            "redis": self._redis(report),
            "listeners": listeners,
            "workers": workers,
            "clients": sum(row["clients"] for row in workers),
            "catching_up": bool(delays),
            "rate": round(self._stats.time_series.rate, 1),
            "latency": self._latency(report),
            "ledger": [entry._asdict() for entry in self._incident_log()],
            "totals": self._totals(listeners, report),
            "unroutable": [unroutable._asdict() for unroutable in report.unroutable],
        }

    @property
    def _snapshot(self) -> RegistrySnapshot | None:
        return self._registry.snapshot if self._registry else None

    def _listeners(self) -> list[ProcessRow]:
        snapshot = self._snapshot
        return process_list.listeners(_aged(snapshot.listeners, snapshot.at)) if snapshot else []

    def _slot(self) -> SlotRow | None:
        name, snapshot = self._info.slot, self._snapshot
        return process_list.slot(name, _aged(snapshot.listeners, snapshot.at)) if name and snapshot else None

    def _workers(self, report: WorkerReport) -> list[ProcessRow]:
        info, snapshot = self._info, self._snapshot
        own = {"pod": info.pod, "pid": info.pid, "uid": info.uid}
        own |= {"state": "alive", "started": round(info.started, 3), "beat_age": 0.0}
        rows = process_list.workers(_aged(snapshot.workers, snapshot.at)) if snapshot else []
        return [own | report.row(), *(row for row in rows if row["uid"] != info.uid)]

    def _problems(self, listeners: list[ProcessRow], queue_usage: float | None, lock_wait: LockWait) -> list[str]:
        found, registry = self._worker.unready() + self._worker.degraded() + problems.queue(queue_usage), self._registry
        found += [problem for problem in problems.notification_lock(lock_wait) if problem not in found]
        if registry is None:
            return found + self._clock_problems()
        if registry.refusal:
            found.append(f"this worker can't register: {registry.refusal}")
        elif registry.outage and self._worker.is_connected:
            found.append(f"Redis refuses, or does not answer: {registry.outage}")
        elif registry.snapshot and not registry.outage:
            found += problems.listeners(listeners) + problems.slot(self._slot(), listeners) + self._clock_problems()
        return found

    def _clock_problems(self) -> list[str]:
        own = self._stats.clock
        return clock_problems(collect_clocks(self._info.pod, own.seconds if own else None, self._snapshot))

    def _delays(self, listeners: list[ProcessRow], report: WorkerReport) -> list[str]:
        if self._registry is None or self._registry.outage or self._registry.snapshot is None:
            return []
        source, rate = report.source, self._stats.time_series.rate
        behind = problems.events_behind(source.position, self._registry.snapshot.head)
        return problems.lag(listeners, behind, rate, is_behind=source.is_behind)

    def _postgres(self, listeners: list[ProcessRow], workers: int, lock_wait: LockWait) -> dict[str, Any]:
        worker, canary = self._worker, self._worker.last_canary
        if worker.mode == "postgres":
            state = "up" if worker.is_connected else "down"
        elif self._registry and self._registry.outage:
            state = "unknown"
        else:
            alive = [row for row in listeners if row["state"] == "alive" and row["role"] != "reserve"]
            connected = [row["connected_since"] is not None or row["role"] == "waiting" for row in alive]
            state = "unknown" if not connected else "up" if any(connected) else "down"
        return {
            "state": state,
            "where": self._info.postgres,
            "queue_usage": canary.queue,
            "max_connections": canary.max_connections,
            "connections": canary.connections,
            "listening": canary.listening,
            "lock_waiters": lock_wait.sessions,
            "lock_wait_seconds": round(lock_wait.seconds, 3),
            "direct": canary.listening if worker.mode == "postgres" else workers,
        }

    def _redis(self, report: WorkerReport) -> dict[str, Any]:
        registry, snapshot = self._registry, self._snapshot
        if registry is None:
            return {"state": "unused", "where": None, "head": None, "stream_length": None, "outage": None}
        outage = report.source.outage or registry.outage
        return {
            "state": "down" if outage or not self._worker.is_connected else "up",
            "where": self._info.redis,
            "head": str(snapshot.head) if snapshot and snapshot.head else None,
            "stream_length": snapshot and snapshot.stream_length,
            "outage": outage,
        }

    def _latency(self, report: WorkerReport) -> dict[str, Any]:
        stats, now = self._stats, time.monotonic()
        hops: dict[str, float | None] = {"postgres_listener_ms": None, "listener_worker_ms": None}
        if self._registry:
            hops["postgres_listener_ms"] = milliseconds(stats.pg_to_listener.percentile(50, now))
            hops["listener_worker_ms"] = milliseconds(stats.listener_to_worker.percentile(50, now))
        return {"p50_ms": milliseconds(report.p50), "p99_ms": milliseconds(report.p99), "hops": hops}

    def _incident_log(self) -> list[LogEntry]:
        """Return the newest entries: those in Redis, and those that this worker has not written yet."""
        who = f"{self._info.pod}/worker {self._info.pid}"
        entries = [log_entry(incident, who) for incident in self._stats.incidents]
        if self._snapshot:
            entries += self._snapshot.log
        return sorted(entries, reverse=True)[:MAX_LOG_ENTRIES]

    def _totals(self, listeners: list[ProcessRow], report: WorkerReport) -> dict[str, int]:
        return {
            "gaps": report.gaps.total(),
            "failovers": sum(row["failovers"] for row in listeners),
            "put_back": sum(row["restored"] for row in listeners),
            "suppressed": report.source.suppressed + sum(row["suppressed"] for row in listeners),
        }


class Watcher:
    """One client of `/api/status/events`, and what it has received: the last bucket, and the events before `cursor`."""

    def __init__(self, status: Status, stats: EventStats, channel: str | None, match: str | None, cursor: int) -> None:
        self._status, self._stats = status, stats
        self._channel, self._match = channel, match
        self._cursor, self._last_bucket = cursor, 0

    def message(self) -> bytes:
        """Return the status, with the buckets and events that are new since the last message."""
        page = self._stats.recent_events.since(self._cursor, self._channel, self._match)
        message = self._status.message(self._last_bucket, page)
        self._cursor, self._last_bucket = page.cursor, self._stats.time_series.last_start
        return message


def _aged(entries: list[RegistryEntry], read_at: float) -> list[RegistryEntry]:
    """Return entries with their present age. While Redis is away nobody can tell whether a process is late."""
    since = min(time.monotonic() - read_at, _SNAPSHOT_SECONDS)
    return [entry._replace(age=entry.age + since) for entry in entries]


def _point(bucket: Bucket) -> list[float | None]:
    rate = None if bucket.rate is None else round(bucket.rate, 1)
    return [bucket.start, rate, milliseconds(bucket.p50), milliseconds(bucket.p99)]
