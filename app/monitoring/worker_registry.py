"""A worker in the registry: its own heartbeats, and, while operators watch, the entries of all processes."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.heartbeat import HEARTBEAT_SECONDS, Heartbeat, RegistryEntry, RegistryRead
from app.core.incident_log import Incidents, LogEntry, parse_log, write_incidents
from app.monitoring.worker_report import WorkerReport
from notifymux.event import EventId
from notifymux.redis_errors import fault, is_forbidden
from notifymux.redis_keys import RedisNames
from notifymux.sync_connection import TIMEOUT_SECONDS

logger = logging.getLogger(__name__)

MAX_LOG_ENTRIES = 50  # of the incident log, in a snapshot and in `/api/status`
# Redis may hold many keys of others. Per cycle, the search for processes makes so many SCANs of so many keys.
_MAX_SCANS, _SCAN_KEYS = 10, 1000
_MAX_PROCESSES = 1000
_DEREGISTER_TIMEOUT_SECONDS = 1.0


class RegistrySnapshot(NamedTuple):
    """What Redis held at a time on the monotonic clock."""

    at: float
    listeners: list[RegistryEntry]
    workers: list[RegistryEntry]
    log: list[LogEntry]  # newest first
    head: EventId | None  # the last id in the stream
    stream_length: int
    clocks: dict[str, float]  # seconds by which the clock of a living process is ahead of this one's, by its key


class WorkerRegistry:
    """One task with one connection: a heartbeat every second, and after it a snapshot if one is wanted.

    Args:
        client: a connection to Redis, which is closed at the end.
        names: the names of the keys.
        pod: this pod's name.
        instance_id: this process's id, unlike any other's: containers may share a pod's name, and count from pid 1.
        report: returns the worker's state and counters.
        incidents: this worker's, for the incident log.
        wake: if it is set, the next heartbeat is sent at once.
    """

    def __init__(
        self,
        client: Redis,
        names: RedisNames,
        pod: str,
        instance_id: str,
        *,
        report: Callable[[], WorkerReport],
        incidents: Incidents,
        wake: asyncio.Event,
    ) -> None:
        self._redis, self._names = client, names
        self._heartbeat = Heartbeat(names.worker(pod, instance_id), pod=pod, uid=instance_id)
        self._who = f"{pod}/worker {os.getpid()}"
        self._report, self._incidents, self._wake = report, incidents, wake
        self._keys: set[str] = set()  # of all processes found so far
        self._scan_cursor = 0
        self._watchers = 0
        self._cycled = asyncio.Event()  # set, and replaced, after each cycle
        self._is_requested = False
        self._recovered_at = -math.inf  # when Redis last answered again after an outage, on the monotonic clock
        self.snapshot: RegistrySnapshot | None = None
        self.outage: str | None = None  # why Redis can't be reached
        self.refusal: str | None = None  # what Redis does not permit this user

    @contextmanager
    def keep_refreshing(self) -> Iterator[None]:
        """Have a snapshot taken every second for as long as the context lasts."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    async def refresh(self) -> None:
        """Wait until `snapshot` is at most a second old, or until Redis fails or refuses; at most a few seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_SECONDS + 0.5):
                while self.snapshot is None or time.monotonic() - self.snapshot.at > HEARTBEAT_SECONDS:
                    cycled, self._is_requested = self._cycled, True
                    self._wake.set()
                    await cycled.wait()
                    if self.outage or self.refusal:
                        return

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        try:
            while True:
                self._wake.clear()
                await self._cycle()
                cycled, self._cycled = self._cycled, asyncio.Event()
                cycled.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await self._wake.wait()
        finally:
            await self._deregister()
            await self._redis.aclose()

    async def _cycle(self) -> None:
        try:
            await self._beat()
            if self.outage:
                self._recovered_at = time.monotonic()
            if self._watchers or self._is_requested:
                self._is_requested = False
                self.snapshot = await self._read()
        except (RedisError, OSError) as error:
            self._failed(error)
        else:
            self.outage = self.refusal = None

    def _failed(self, error: RedisError | OSError) -> None:
        """Record why a cycle failed. Only a refusal is logged here; the source logs an outage of Redis."""
        found = fault(error)
        if is_forbidden(error):
            if self.refusal is None:
                logger.warning("this worker can't register: %s", found)
            self.outage, self.refusal = None, str(found)
        else:
            self.outage = str(found)

    async def _beat(self) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        self._heartbeat.beat(pipeline, self._report().hash_fields())
        drained = self._incidents.drain()
        write_incidents(pipeline, self._names.ledger, self._who, drained)
        try:
            await pipeline.execute()
        except (RedisError, OSError):
            self._incidents.requeue(drained)
            raise

    async def _deregister(self) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        self._heartbeat.deregister(pipeline)
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_DEREGISTER_TIMEOUT_SECONDS):
                await pipeline.execute()

    async def _read(self) -> RegistrySnapshot:
        await self._find_keys()
        hashes = RegistryRead(sorted(self._keys))
        pipeline = self._redis.pipeline(transaction=False)
        hashes.queue(pipeline)
        pipeline.xrevrange(self._names.ledger, count=MAX_LOG_ENTRIES)
        pipeline.xrevrange(self._names.log, count=1)
        pipeline.xlen(self._names.log)
        *answers, log, head, stream_length = await pipeline.execute()
        # While Redis was away no process could send a heartbeat, so that time doesn't count.
        max_age = time.monotonic() - self._recovered_at
        entries = hashes.parse(answers)
        clocks = {entry.key: ahead for entry in entries if (ahead := entry.clock_ahead(time.time())) is not None}
        entries = [entry._replace(age=min(entry.age, max_age)) for entry in entries]
        self._keys = {entry.key for entry in entries}
        return RegistrySnapshot(
            time.monotonic(),
            [entry for entry in entries if fnmatchcase(entry.key, self._names.listeners)],
            [entry for entry in entries if fnmatchcase(entry.key, self._names.workers)],
            parse_log(log),
            EventId.parse(head[0][0].decode()) if head else None,
            stream_length,
            clocks,
        )

    async def _find_keys(self) -> None:
        """Continue the search for the keys of processes."""
        for _ in range(_MAX_SCANS):
            found: Any
            self._scan_cursor, found = await self._redis.scan(
                self._scan_cursor, match=self._names.processes, count=_SCAN_KEYS
            )
            self._keys.update(key.decode() for key in found[: max(0, _MAX_PROCESSES - len(self._keys))])
            if not self._scan_cursor:
                break
