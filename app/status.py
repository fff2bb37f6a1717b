"""How it goes, as one JSON object: the status page's, and that of whoever asks `/api/status`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import msgspec

from app import processes
from app.core.event import EventId
from app.core.ledger import Line, line
from app.processes import Row
from app.registry import Record, Registry
from app.report import fields
from app.tail import Look
from app.timeline import STEP, Point
from app.websocket_manager import MatchDataWebSocketManager

_LINES = 50  # of the ledger
_READ_EVERY = 1.2  # seconds, a little more than the registry takes between two readings
_SOME = 100  # events that nobody calls a delay
_QUEUE_FILLS = 0.5  # of PostgreSQL's queue


class Place(NamedTuple):
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

    def __init__(self, place: Place, manager: MatchDataWebSocketManager, registry: Registry | None) -> None:
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

    def message(self, since: int = 0, look: Look | None = None) -> bytes:
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

    def tail(self, mark: int, channel: str | None, match: str | None) -> Look:
        """What came since `mark`."""
        return self._observer.tail.look(mark, channel, match)

    def _body(self) -> dict[str, Any]:
        place, manager, observer = self._place, self._manager, self._observer
        listeners, workers = self._listeners(), self._workers()
        alive = [row for row in listeners if row["state"] == "alive"]
        delays = self._delays(alive)
        postgres = self._postgres(alive, len(workers))
        problems = self._problems(listeners, postgres) + delays
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
            "rate": round(observer.timeline.rate, 1),
            "latency": self._latency(),
            "ledger": [entry._asdict() for entry in self._ledger()],
            "totals": self._totals(listeners),
        }

    # Who is there.

    def _listeners(self) -> list[Row]:
        reading = self._registry and self._registry.reading
        return processes.listeners(self._aged(reading.listeners, reading.at)) if reading else []

    def _workers(self) -> list[Row]:
        reading = self._registry and self._registry.reading
        place = self._place
        me = {"pod": place.pod, "pid": str(place.pid), "started": f"{place.started:.3f}"}
        own = processes.worker(Record(me | {k: str(v) for k, v in fields(self._manager.report()).items()}, 0.0))
        rows = processes.workers(self._aged(reading.workers, reading.at)) if reading else []
        return [own, *(row for row in rows if (row["pod"], row["pid"]) != (place.pod, place.pid))]

    def _aged(self, records: list[Record], read_at: float) -> list[Record]:
        """Records as they are now: while Redis does not answer, nobody can tell that somebody is late."""
        since = min(time.monotonic() - read_at, _READ_EVERY)
        return [record._replace(age=record.age + since) for record in records]

    # What is wrong.

    def _problems(self, listeners: list[Row], postgres: dict[str, Any]) -> list[str]:
        problems = self._manager.unready()
        if self._registry and self._registry.outage:
            if self._manager.is_connected:
                problems.append(f"the registry in Redis can't be kept: {self._registry.outage}")
        elif self._registry and self._registry.reading:
            problems += _about(listeners)
        if (postgres["queue_usage"] or 0) > _QUEUE_FILLS:
            share = f"{postgres['queue_usage']:.0%}"
            problems.append(f"PostgreSQL's queue of notifications is {share} full: some session does not read")
        return problems

    def _delays(self, alive: list[Row]) -> list[str]:
        """Who holds events that are not where they should be yet."""
        much = _SOME + self._observer.timeline.rate
        delays = []
        reading = self._registry and self._registry.reading
        position = self._manager.report().position
        if self._registry and not self._registry.outage and reading and reading.head and position:
            head, at = EventId.parse(reading.head), EventId.parse(position)
            lag = head.sequence - at.sequence if head.epoch == at.epoch else 0
            if lag > (0 if self._manager.behind else much):
                delays.append(f"catching up: this worker is {lag} events behind")
            delays += [
                f"catching up: listener {_name(row)} holds {row['buffered']} events"
                for row in alive
                if row["buffered"] > much
            ]
        return delays

    # The parts.

    def _postgres(self, alive: list[Row], direct: int) -> dict[str, Any]:
        manager, canary = self._manager, self._manager.last_canary
        if manager.mode == "postgres":
            state = "up" if manager.is_connected else "down"
        elif self._registry and self._registry.outage:
            state = "unknown"
        else:
            connected = [row["connected_since"] is not None for row in alive]
            state = "unknown" if not connected else "up" if any(connected) else "down"
        return {
            "state": state,
            "where": self._place.postgres,
            "queue_usage": canary.queue,
            "max_connections": canary.max_connections,
            "connections": canary.connections,
            "listening": canary.listening,
            "direct": direct,
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

    def _latency(self) -> dict[str, Any]:
        observer, now = self._observer, time.monotonic()
        hops: dict[str, float | None] = {"postgres_listener_ms": None, "listener_worker_ms": None}
        if self._registry:
            hops["postgres_listener_ms"] = _milliseconds(observer.first_hop.percentile(50, now))
            hops["listener_worker_ms"] = _milliseconds(observer.last_hop.percentile(50, now))
        return {
            "p50_ms": _milliseconds(observer.whole.percentile(50, now)),
            "p99_ms": _milliseconds(observer.whole.percentile(99, now)),
            "hops": hops,
        }

    def _ledger(self) -> list[Line]:
        """What Redis has, and what this worker could not write there."""
        lines = [line(incident, f"{self._place.pod}/worker {self._place.pid}") for incident in self._observer.incidents]
        if self._registry and self._registry.reading:
            lines += self._registry.reading.lines
        return sorted(lines, reverse=True)[:_LINES]

    def _totals(self, listeners: list[Row]) -> dict[str, int]:
        report = self._manager.report()
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


def _about(listeners: list[Row]) -> list[str]:
    problems = []
    if not any(row["state"] == "alive" for row in listeners):
        problems.append("no listener is alive")
    for row in listeners:
        name, role = _name(row), row["role"]
        if row["state"] in {"late", "dead"}:
            problems.append(f"listener {name} has been silent for {row['beat_age']:.0f} s")
        elif row["state"] == "alive" and role == "unconnected":
            problems.append(f"listener {name} is not connected to PostgreSQL")
        elif row["state"] == "alive" and role == "unaligned":
            problems.append(f"listener {name} is looking for its place in the count")
    return problems


def _name(row: Row) -> str:
    return f"{row['pod']}/{row['program']}"


def _point(point: Point) -> list[float | None]:
    rate = None if point.rate is None else round(point.rate, 1)
    return [point.start, rate, _milliseconds(point.p50), _milliseconds(point.p99)]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
