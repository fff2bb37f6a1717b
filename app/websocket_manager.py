"""A worker: one source of events, in one of two modes, and the hub that sends its events to clients."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from app.broadcast.drain import Drain
from app.broadcast.hub import Hub
from app.broadcast.match_rights import MatchRights
from app.broadcast.match_view import MatchView
from app.broadcast.queried_update import QueriedUpdate
from app.broadcast.query_pool import QueryPool, QueryResult
from app.broadcast.router import Router
from app.core.canary import Canary
from app.core.config import Settings, load_queries
from app.core.query_files import Queries, QueryFile, claim_names
from app.core.tasks import start_task
from app.monitoring.event_stats import EventStats
from app.monitoring.recent_events import RecentEvents
from app.monitoring.worker_report import QueryCounts, RightsCounts, WorkerReport
from app.sources.base import EventSink, EventSource
from app.sources.postgres import PostgresSource
from app.sources.redis import RedisSource
from notifymux.event import NULL, EventId
from notifymux.redis_client import RedisAddress
from notifymux.redis_keys import RedisNames
from notifymux.stream_reader import Take

DatabaseUrl = Callable[[], str]

_DEFAULTS = Settings()
_CANCEL_TIMEOUT_SECONDS = 1.0


class _Pools(NamedTuple):
    """The connections for queries; None where there is no query."""

    snapshots: QueryPool | None
    rows: QueryPool | None
    rights: QueryPool | None


class MatchDataWebSocketManager:
    """Receives events from Redis or PostgreSQL and sends them to WebSocket and event stream clients.

    Args:
        db_url: PostgreSQL's connection string, for snapshots, and in PostgreSQL mode for LISTEN; or a function that
            returns it, which is called in a thread before every connect.
        use_redis: True: Redis mode; False: PostgreSQL mode.
        redis_url: Redis, in Redis mode; or its address, which other connections of this process share.
        settings: everything else.
        queries: what clients are shown; by default, what `settings` name.

    Raises:
        ValueError: the mode's URL is missing.
        SettingsError: a query can't be right.
    """

    def __init__(
        self,
        db_url: DatabaseUrl | str | None,
        use_redis: bool = False,
        redis_url: RedisAddress | str | None = None,
        *,
        settings: Settings = _DEFAULTS,
        queries: Queries | None = None,
    ) -> None:
        self.mode = "redis" if use_redis else "postgres"
        self._canary_timeout = 3 * settings.canary_interval + 1  # seconds
        connect_to = (lambda: db_url) if isinstance(db_url, str) else db_url
        self._queries = load_queries(settings) if queries is None else queries
        self._pools = _query_pools(connect_to, settings, self._queries)
        match_key, *other_keys = settings.routing_key
        router = Router(match_key, settings.latest_wins_channels, self._queries.channels, other_keys=other_keys)
        self.hub = Hub(
            router,
            self._fetch_snapshot,
            self._read_range,
            settings.client_queue_bytes,
            settings.history_bytes,
            snapshot_pool=settings.snapshot_pool,
            snapshot_timeout=settings.snapshot_timeout,
            queries=self._queries,
            fetch_row=self._fetch_row if self._pools.rows else None,
            row_timeout=settings.query_timeout,
        )
        self.drain = Drain(self.hub, settings.drain_seconds)
        self.rights = self._match_rights(settings)
        self.event_stats = EventStats(self.hub, RecentEvents(router), sends_canaries=not use_redis)
        self._source = _source(connect_to, redis_url if use_redis else None, use_redis, settings, self.event_stats)
        self._task: asyncio.Task[None] | None = None
        self._queue_bytes = 0

    async def startup(self) -> None:
        """Start to receive events, in the background; return at once, also if a server is not available."""
        self._task = start_task(self._source.run(), "a bug ended this worker's source of events")

    async def shutdown(self) -> None:
        """Stop receiving events and close the connections to the servers, whatever state the source is in."""
        task, self._task = self._task, None
        while task and not task.done():
            # More than once, because a driver may swallow a cancellation, if what it awaits completes at the same time.
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_TIMEOUT_SECONDS)
        await self.hub.aclose()
        if self.rights:
            await self.rights.aclose()
        for pool in filter(None, self._pools):
            await pool.close()

    @property
    def is_connected(self) -> bool:
        """Whether the server of this worker's mode is connected and answers."""
        return self._task is not None and not self._task.done() and self._source.status().is_connected

    @property
    def broken(self) -> bool:
        """Whether a bug ended this worker's source, so that only a restart helps."""
        return self._task is not None and self._task.done()

    @property
    def last_canary(self) -> Canary:
        """The last canary; an empty one if it is too old."""
        is_fresh = time.monotonic() - self.event_stats.canary_at <= self._canary_timeout
        return self.event_stats.canary if is_fresh else Canary()

    def unready(self) -> list[str]:
        """Return why this worker is not ready, for people.

        Empty if a canary arrived within the last seconds, unless this worker ends.
        """
        reasons = ["this worker ends, and closes its clients"] if self.drain.is_active else []
        source = self._source.status()
        server = "Redis" if self.mode == "redis" else "PostgreSQL"
        if self.broken:
            reasons.append("this worker's source of events has ended: see its log")
        elif not self.is_connected:
            reasons.append(f"this worker is not connected to {server}: {source.outage or 'not yet'}")
        at = source.canary_at
        if at is None or time.monotonic() - at > self._canary_timeout:
            path = "PostgreSQL, the listener and Redis" if self.mode == "redis" else "PostgreSQL"
            age = "yet" if at is None else f"for {time.monotonic() - at:.0f} s"
            reasons.append(f"no canary has come through {path} {age}")
        if reasons and source.stall:
            reasons.append(source.stall)
        return reasons

    def degraded(self) -> list[str]:
        """Return why this worker is served by the feed of its pod's listener alone; empty if it is not."""
        source = self._source.status()
        if source.is_fed and source.outage:
            return [f"Redis is away: {source.outage}; events come by this pod's listener"]
        if source.is_stream_behind:
            return ["the listener can't append to the stream in Redis; events come by this pod's listener"]
        return []

    def sample(self) -> None:
        """Sample the rates and the queues, and ask for old rights again; to be called once a second."""
        if self.rights:
            self.rights.ask_again()
        self.event_stats.sample()
        self._queue_bytes = self.hub.queue_bytes  # not in `report`: with many clients it takes long

    def report(self) -> WorkerReport:
        """Return the counters and the state of this worker."""
        now, hub, stats = time.monotonic(), self.hub, self.event_stats
        return WorkerReport(
            mode=self.mode,
            clients=len(hub),
            source=self._source.status(),
            events=stats.events,
            gaps=stats.gaps,
            slow_closes=hub.slow_closes,
            recovered=hub.initial_loads.recovered,
            restarted=hub.initial_loads.restarted,
            snapshots=self._pools.snapshots.queries if self._pools.snapshots else 0,
            failed_snapshots=self._pools.snapshots.failures if self._pools.snapshots else 0,
            waiting_snapshots=hub.snapshots.queries.waiting,
            oldest_snapshot_wait=hub.snapshots.queries.oldest_wait,
            queries=self._query_counts(),
            rights=self._rights_counts(),
            queue_bytes=self._queue_bytes,
            p50=stats.end_to_end.percentile(50, now),
            p99=stats.end_to_end.percentile(99, now),
            verified=stats.verified,
            unroutable=hub.unroutable.report(),
        )

    def _query_counts(self) -> QueryCounts:
        pool, rows = self._pools.rows, self.hub.rows
        if pool is None or rows is None:
            return QueryCounts()
        return QueryCounts(pool.queries, pool.failures, rows.merged, rows.overflows, rows.waiting)

    def _rights_counts(self) -> RightsCounts:
        pool, rights = self._pools.rights, self.rights
        if pool is None or rights is None:
            return RightsCounts()
        return RightsCounts(pool.queries, pool.failures, rights.revoked, rights.unchecked, rights.queries.waiting)

    def _match_rights(self, settings: Settings) -> MatchRights | None:
        pool, queries = self._pools.rights, self._queries.rights
        if pool is None:
            return None

        async def ask(view: MatchView) -> QueryResult:
            return await _run_for(pool, queries[view.key], view)

        names = claim_names(queries.values())
        return MatchRights(names, ask, settings.snapshot_pool, settings.query_timeout)

    async def _fetch_snapshot(self, view: MatchView) -> QueryResult:
        pool, query = self._pools.snapshots, self._queries.snapshots.get(view.key)
        return await _run_for(pool, query, view) if pool and query else QueryResult(NULL)

    async def _fetch_row(self, update: QueriedUpdate, claims: str, within: float) -> QueryResult:
        if self._pools.rows is None:
            raise ValueError(f"there are no queries for {update.channel}")
        parameters = {"match_id": update.match, "claims": update.query.claims.of(claims), **dict(update.parameters)}
        return await self._pools.rows.run(update.query, parameters, within)

    async def _read_range(self, after: EventId, until: EventId, take: Take) -> bool:
        return await self._source.read_range(after, until, take)


async def _run_for(pool: QueryPool, query: QueryFile, view: MatchView) -> QueryResult:
    """Run a query for a view, whose claims may be more than those that this query names."""
    return await pool.run(query, view._replace(claims=query.claims.of(view.claims)).parameters)


def _query_pools(db_url: DatabaseUrl | None, settings: Settings, queries: Queries) -> "_Pools":
    """Return a pool for each kind of query, so that none delays another."""
    if not queries.files:
        return _Pools(None, None, None)
    if db_url is None:
        name = "SNAPSHOT_QUERY" if settings.snapshot_query else "QUERIES_DIR"
        raise ValueError(f"{name} needs DB_HOST: it takes the host of the PostgreSQL to ask")

    def pool(name: str, timeout: float, failure: str) -> QueryPool:
        return QueryPool(db_url, settings.snapshot_pool, timeout, f"notifymux-{name}/{settings.pod_name}", failure)

    snapshots = pool("snapshot", settings.snapshot_timeout, "the snapshot could not be taken; updates follow")
    rows = pool("query", settings.query_timeout, "the query failed or took too long; fetch the state")
    rights = pool("authorize", settings.query_timeout, "")
    return _Pools(
        snapshots if queries.snapshots else None,
        rows if queries.channels else None,
        rights if queries.rights else None,
    )


def _source(
    db_url: DatabaseUrl | None,
    redis_url: RedisAddress | str | None,
    use_redis: bool,
    settings: Settings,
    sink: EventSink,
) -> EventSource:
    if use_redis:
        if redis_url is None:
            raise ValueError("USE_REDIS_NOTIFIER needs REDIS_URL: it takes the URL of the Redis to hear")
        names = RedisNames(settings.redis_namespace)
        address = RedisAddress(redis_url, names.log) if isinstance(redis_url, str) else redis_url
        return RedisSource(address, names, settings.canary_interval, settings.history_bytes, sink)
    if db_url is None:
        raise ValueError("DB_HOST is not set: it takes the host of the PostgreSQL to listen to")
    name = f"notifymux-worker/{settings.pod_name}"
    return PostgresSource(db_url, settings.notify_channels, name, settings.canary_interval, sink)
