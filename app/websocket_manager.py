"""A worker's life: one source of events, in one of two modes, and the hub that it feeds."""

import asyncio
import logging
import time

from app.broadcast.hub import Client, Hub
from app.broadcast.messages import Router
from app.broadcast.snapshot_query import Snapshot, SnapshotQuery
from app.core.canary import Canary
from app.core.config import Settings
from app.core.redis_keys import RedisNames
from app.monitoring.event_stats import EventStats
from app.monitoring.recent_events import RecentEvents
from app.monitoring.worker_report import WorkerReport
from app.sources.base import EventSink, EventSource
from app.sources.postgres import PostgresSource
from app.sources.redis import RedisSource
from notifymux.event import NULL, Event, EventId

logger = logging.getLogger(__name__)

_DEFAULTS = Settings.model_construct()


class MatchDataWebSocketManager:
    """Hears events and fans them out to WebSocket clients.

    Args:
        db_url: PostgreSQL's connection string; in PostgreSQL mode it is LISTENed to, and snapshots come from it.
        use_redis: True: hear Redis; False: LISTEN directly.
        redis_url: Redis, in Redis mode.
        settings: everything else; without it, the defaults.

    Raises:
        ValueError: the mode's URL is missing.
    """

    def __init__(
        self,
        db_url: str | None,
        use_redis: bool = False,
        redis_url: str | None = None,
        *,
        settings: Settings = _DEFAULTS,
    ) -> None:
        self.mode = "redis" if use_redis else "postgres"
        self._ready_within = 3 * settings.canary_interval + 1
        self._snapshots = _snapshots(db_url, settings)
        router = Router(settings.routing_key, settings.latest_wins_channels)
        self.hub = Hub(
            router,
            self._take_snapshot,
            self._recall,
            settings.client_queue_bytes,
            settings.history_bytes,
        )
        self.event_stats = EventStats(self.hub, RecentEvents(router))
        self._source = _source(db_url, redis_url if use_redis else None, use_redis, settings, self.event_stats)
        self._task: asyncio.Task[None] | None = None
        self._queue_bytes = 0

    async def startup(self) -> None:
        """Starts hearing, in the background: a server that is away is waited for."""
        if self._snapshots:
            await self._snapshots.open()
        self._task = asyncio.create_task(self._source.run(), name="source")
        self._task.add_done_callback(_report_bug)

    async def shutdown(self) -> None:
        """Stops hearing and lets go of every connection, whatever state the source is in."""
        task, self._task = self._task, None
        while task and not task.done():
            # More than once: what a driver awaits may complete in the same moment, and swallow it.
            task.cancel()
            await asyncio.wait([task], timeout=1.0)
        await self.hub.aclose()
        if self._snapshots:
            await self._snapshots.close()

    @property
    def is_connected(self) -> bool:
        """Whether the server that this worker hears is there and answers, at this moment."""
        return self._task is not None and not self._task.done() and self._source.status().is_connected

    @property
    def broken(self) -> bool:
        """Whether a bug ended this worker's source, so that only a restart helps."""
        return self._task is not None and self._task.done()

    @property
    def last_canary(self) -> Canary:
        """What the last canary said; nothing, if that is too long ago."""
        is_fresh = time.monotonic() - self.event_stats.canary_at <= self._ready_within
        return self.event_stats.canary if is_fresh else Canary()

    def unready(self) -> list[str]:
        """Why this worker is not ready, for people; empty when a canary has passed within the last seconds."""
        reasons = []
        source = self._source.status()
        server = "Redis" if self.mode == "redis" else "PostgreSQL"
        if self.broken:
            reasons.append("this worker's source of events has ended: see its log")
        elif not self.is_connected:
            reasons.append(f"this worker is not connected to {server}: {source.outage or 'not yet'}")
        at = source.canary_at
        if at is None or time.monotonic() - at > self._ready_within:
            way = "PostgreSQL, the listener and Redis" if self.mode == "redis" else "PostgreSQL"
            age = "yet" if at is None else f"for {time.monotonic() - at:.0f} s"
            reasons.append(f"no canary has come through {way} {age}")
        return reasons

    def sample(self) -> None:
        """To be called once a second, for who watches."""
        self.event_stats.sample()
        self._queue_bytes = self.hub.queue_bytes  # which takes a while where there are many clients

    def report(self) -> WorkerReport:
        """What this worker says of itself."""
        now, hub, stats = time.monotonic(), self.hub, self.event_stats
        return WorkerReport(
            mode=self.mode,
            clients=len(hub),
            source=self._source.status(),
            events=stats.events,
            gaps=stats.gaps,
            slow_closes=hub.slow_closes,
            recovered=hub.recovered,
            restarted=hub.restarted,
            snapshots=self._snapshots.queries if self._snapshots else 0,
            failed_snapshots=self._snapshots.failures if self._snapshots else 0,
            queue_bytes=self._queue_bytes,
            p50=stats.end_to_end.percentile(50, now),
            p99=stats.end_to_end.percentile(99, now),
            verified=stats.verified,
        )

    def join(self, match: str, name: str, last: EventId | None = None) -> Client:
        """Adds a client to a match; it hears everything since `last`, or else since the snapshot it starts with."""
        return self.hub.join(match, name, last)

    def leave(self, client: Client) -> None:
        """Removes a client."""
        self.hub.leave(client)

    async def _take_snapshot(self, match: str) -> Snapshot:
        return await self._snapshots.take(match) if self._snapshots else Snapshot(NULL)

    async def _recall(self, after: EventId, until: EventId) -> list[Event] | None:
        return await self._source.read_range(after, until)


def _snapshots(db_url: str | None, settings: Settings) -> SnapshotQuery | None:
    if settings.snapshot_query is None:
        return None
    if db_url is None:
        raise ValueError("SNAPSHOT_QUERY needs DB_HOST: it takes the host of the PostgreSQL to ask")
    name = f"notifymux-snapshot/{settings.pod_name}"
    return SnapshotQuery(db_url, settings.snapshot_query, settings.snapshot_pool, settings.snapshot_timeout, name)


def _source(
    db_url: str | None, redis_url: str | None, use_redis: bool, settings: Settings, sink: EventSink
) -> EventSource:
    if use_redis:
        if redis_url is None:
            raise ValueError("USE_REDIS_NOTIFIER needs REDIS_URL: it takes the URL of the Redis to hear")
        names = RedisNames(settings.redis_namespace)
        return RedisSource(redis_url, names, settings.canary_interval, settings.history_bytes, sink)
    if db_url is None:
        raise ValueError("DB_HOST is not set: it takes the host of the PostgreSQL to listen to")
    name = f"notifymux-worker/{settings.pod_name}"
    return PostgresSource(db_url, settings.notify_channels, name, settings.canary_interval, sink)


def _report_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.critical("a bug ended this worker's source of events", exc_info=error)
