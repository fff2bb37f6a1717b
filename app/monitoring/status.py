"""How it goes, as one JSON object: the status page's, and that of whoever asks `/api/status`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import msgspec

from app.core.incident_log import LogEntry, line
from app.monitoring import problems as diagnosis
from app.monitoring import process_list as processes
from app.monitoring.process_list import ProcessRow
from app.monitoring.recent_events import EventsPage
from app.monitoring.time_series import STEP, Bucket
from app.monitoring.worker_registry import RegistryEntry, WorkerRegistry
from app.monitoring.worker_report import WorkerReport, WorkerState, fields

_LINES = 50  # of the ledger
_READ_EVERY = 1.2  # seconds, a little more than the registry takes between two readings


class WorkerInfo(NamedTuple):
    """What does not change while a worker runs."""

    version: str
    embedded: bool
    namespace: str
    pod: str
    pid: int
    started: float  # Unix seconds
    postgres: str | None  # where it is, for people
    redis: str | None


class Status:
    """What a worker knows of the whole.

    Args:
        place: where it is.
        manager: this worker's.
        registry: what it knows of the others; None in PostgreSQL mode.
    """

    def __init__(self, place: WorkerInfo, manager: WorkerState, registry: WorkerRegistry | None) -> None:
        self._place, self._manager, self._registry = place, manager, registry
        self._observer = manager.observer

    async def look(self) -> None:
        """Has everything be at most a second old, if Redis answers."""
        if self._registry:
            await self._registry.look()

    @contextmanager
    def watch(self, channel: str | None, match: str | None) -> Iterator["Watcher"]:
        """Has everything be at most a second old, and the tail be kept, for as long as the context lasts."""
        with self._registry.watch() if self._registry else nullcontext(), self._observer.tail.watch() as mark:
            yield Watcher(self, channel, match, mark)

    def message(self, since: int = 0, look: EventsPage | None = None) -> bytes:
        """The JSON, with the points of the series that start after `since`, and with what the tail showed."""
        body = self._body()
        points = self._observer.timeline.since(since)
        body["series"] = {"step": STEP, "points": [_point(point) for point in points]}
        body["tail"], body["tail_skipped"] = (look.events, look.skipped) if look else ([], 0)
        return msgspec.json.encode(body)

    @property
    def last_point(self) -> int:
        """When the series' last point starts."""
        return self._observer.timeline.last

    def tail(self, mark: int, channel: str | None, match: str | None) -> EventsPage:
        """What came since `mark`."""
        return self._observer.tail.look(mark, channel, match)

    def _body(self) -> dict[str, Any]:
        place, manager, report = self._place, self._manager, self._manager.report()
        listeners, workers = self._listeners(), self._workers(report)
        postgres, delays = self._postgres(listeners, len(workers)), self._delays(listeners, report)
        problems = self._problems(listeners, postgres["queue_usage"]) + delays
        state = "broken" if manager.broken else "degraded" if problems else "healthy"
        return {
            "at": round(time.time(), 3),
            "version": place.version,
            "embedded": place.embedded,
            "namespace": place.namespace,
            "mode": manager.mode,
            "state": state,
            "problems": problems,
            "worker": {"pod": place.pod, "pid": place.pid},
            "postgres": postgres,
            "redis": self._redis(),
            "listeners": listeners,
            "workers": workers,
            "clients": sum(row["clients"] for row in workers),
            "catching_up": bool(delays),
            "rate": round(self._observer.timeline.rate, 1),
            "latency": self._latency(report),
            "ledger": [entry._asdict() for entry in self._ledger()],
            "totals": self._totals(listeners, report),
        }

    # Who is there.

    def _listeners(self) -> list[ProcessRow]:
        reading = self._registry and self._registry.reading
        return processes.listeners(self._aged(reading.listeners, reading.at)) if reading else []

    def _workers(self, report: WorkerReport) -> list[ProcessRow]:
        reading = self._registry and self._registry.reading
        place = self._place
        me = {"pod": place.pod, "pid": str(place.pid), "started": f"{place.started:.3f}"}
        own = processes.worker(RegistryEntry(me | {k: str(v) for k, v in fields(report).items()}, 0.0))
        rows = processes.workers(self._aged(reading.workers, reading.at)) if reading else []
        return [own, *(row for row in rows if (row["pod"], row["pid"]) != (place.pod, place.pid))]

    def _aged(self, records: list[RegistryEntry], read_at: float) -> list[RegistryEntry]:
        """Records as they are now: while Redis does not answer, nobody can tell that somebody is late."""
        since = min(time.monotonic() - read_at, _READ_EVERY)
        return [record._replace(age=record.age + since) for record in records]

    # What is wrong.

    def _problems(self, listeners: list[ProcessRow], queue_usage: float | None) -> list[str]:
        problems, registry = self._manager.unready() + diagnosis.of_queue(queue_usage), self._registry
        if registry is None:
            if self._manager.waiters[0]:
                problems.append(
                    "%d sessions wait for the notification lock, the first for %.0f s" % self._manager.waiters
                )
            return problems
        if registry.refusal:
            problems.append(f"this worker can't register: {registry.refusal}")
        elif registry.outage and self._manager.is_connected:
            problems.append(f"Redis does not answer: {registry.outage}")
        elif registry.reading and not registry.outage:
            problems += diagnosis.of_listeners(listeners)
        return problems

    def _delays(self, listeners: list[ProcessRow], report: WorkerReport) -> list[str]:
        if self._registry is None or self._registry.outage or self._registry.reading is None:
            return []
        lag = diagnosis.lag(report.position, self._registry.reading.head)
        return diagnosis.of_delays(listeners, lag, self._observer.timeline.rate, behind=self._manager.behind)

    # The parts.

    def _postgres(self, listeners: list[ProcessRow], workers: int) -> dict[str, Any]:
        manager, canary = self._manager, self._manager.last_canary
        if manager.mode == "postgres":
            state = "up" if manager.is_connected else "down"
        elif self._registry and self._registry.outage:
            state = "unknown"
        else:
            connected = [row["connected_since"] is not None for row in listeners if row["state"] == "alive"]
            state = "unknown" if not connected else "up" if any(connected) else "down"
        return {
            "state": state,
            "where": self._place.postgres,
            "queue_usage": canary.queue,
            "max_connections": canary.max_connections,
            "connections": canary.connections,
            "listening": canary.listening,
            "direct": canary.listening if manager.mode == "postgres" else workers,
        }

    def _redis(self) -> dict[str, Any]:
        registry = self._registry
        if registry is None:
            return {"state": "unused", "where": None, "head": None, "stream_length": None, "outage": None}
        outage = self._manager.outage or registry.outage
        return {
            "state": "down" if outage or not self._manager.is_connected else "up",
            "where": self._place.redis,
            "head": registry.reading and registry.reading.head,
            "stream_length": registry.reading and registry.reading.length,
            "outage": outage,
        }

    def _latency(self, report: WorkerReport) -> dict[str, Any]:
        observer, now = self._observer, time.monotonic()
        hops: dict[str, float | None] = {"postgres_listener_ms": None, "listener_worker_ms": None}
        if self._registry:
            hops["postgres_listener_ms"] = _milliseconds(observer.first_hop.percentile(50, now))
            hops["listener_worker_ms"] = _milliseconds(observer.last_hop.percentile(50, now))
        return {
            "p50_ms": _milliseconds(report.p50),
            "p99_ms": _milliseconds(report.p99),
            "hops": hops,
        }

    def _ledger(self) -> list[LogEntry]:
        """What Redis has, and what this worker could not write there."""
        lines = [line(incident, f"{self._place.pod}/worker {self._place.pid}") for incident in self._observer.incidents]
        if self._registry and self._registry.reading:
            lines += self._registry.reading.lines
        return sorted(lines, reverse=True)[:_LINES]

    def _totals(self, listeners: list[ProcessRow], report: WorkerReport) -> dict[str, int]:
        return {
            "gaps": report.gaps.total(),
            "failovers": sum(row["failovers"] for row in listeners),
            "put_back": sum(row["restored"] for row in listeners),
            "suppressed": report.suppressed + sum(row["suppressed"] for row in listeners),
        }


class Watcher:
    """One who watches, and what it has seen.

    Args:
        status: what it watches.
        channel: of the tail, only this channel.
        match: of the tail, only this match.
        mark: the tail's, from where it looks.
    """

    def __init__(self, status: Status, channel: str | None, match: str | None, mark: int) -> None:
        self._status, self._channel, self._match = status, channel, match
        self._mark, self._last_point = mark, 0

    def message(self) -> bytes:
        """The status, with what is new in the series and the tail."""
        look = self._status.tail(self._mark, self._channel, self._match)
        message = self._status.message(self._last_point, look)
        self._mark, self._last_point = look.mark, self._status.last_point
        return message


def _point(point: Bucket) -> list[float | None]:
    rate = None if point.rate is None else round(point.rate, 1)
    return [point.start, rate, _milliseconds(point.p50), _milliseconds(point.p99)]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
