"""The registry in Redis as a worker keeps it: its own hash, and, while somebody watches, what all the others say."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core import incident_log as ledger
from app.core.heartbeat import HEARTBEAT_SECONDS, Heartbeat, age
from app.core.incident_log import Incidents, LogEntry
from app.core.operator_errors import OperatorError, check_redis_operator
from app.core.redis_keys import RedisNames
from notifymux.outage import one_line
from notifymux.redis_client import TIMEOUT_SECONDS

logger = logging.getLogger(__name__)

_LINES = 50  # of the ledger
# Redis may be full of others' keys. Of those, so many are looked through in one turn.
_SCANS, _SCANNED = 10, 1000
_MOST_PROCESSES = 1000
_LEAVE_WITHIN = 1.0  # seconds


class RegistryEntry(NamedTuple):
    """One process's hash, and how long ago it was renewed, in seconds."""

    fields: Mapping[str, str]
    age: float


class RegistrySnapshot(NamedTuple):
    """What Redis held at a time on the monotonic clock."""

    at: float
    listeners: list[RegistryEntry]
    workers: list[RegistryEntry]
    lines: list[LogEntry]  # newest first
    head: str | None
    length: int


class WorkerRegistry:
    """One task, one connection: a heartbeat a second, and with it a reading if one is wanted.

    Args:
        client: a connection to Redis, which is closed at the end.
        names: the names in it.
        pod: this pod's name.
        report: what this worker says of itself.
        incidents: what it has for the ledger.
        wake: has the next heartbeat come at once when it is set.
    """

    def __init__(
        self,
        client: Redis,
        names: RedisNames,
        pod: str,
        *,
        report: Callable[[], Mapping[str, str | int]],
        incidents: Incidents,
        wake: asyncio.Event,
    ) -> None:
        self._redis, self._names = client, names
        self._heartbeat = Heartbeat(names.worker(pod, os.getpid()), pod=pod)
        self._who = f"{pod}/worker {os.getpid()}"
        self._report, self._incidents, self._wake = report, incidents, wake
        self._found: set[str] = set()  # everybody's keys
        self._cursor = 0  # where the search for them goes on
        self._watchers = 0
        self._turned = asyncio.Event()
        self._asked = False
        self._back_at = -math.inf  # when Redis was last away no more
        self.reading: RegistrySnapshot | None = None
        self.outage: str | None = None  # why Redis is away
        self.refusal: str | None = None  # what it doesn't let this user do

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Has the registry read every second for as long as the context lasts."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    async def look(self) -> None:
        """Waits until `reading` is at most a second old, or it is known why it can't be; for seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_SECONDS + 0.5):
                while self.reading is None or time.monotonic() - self.reading.at > HEARTBEAT_SECONDS:
                    turned, self._asked = self._turned, True
                    self._wake.set()
                    await turned.wait()
                    if self.outage or self.refusal:
                        return

    async def run(self) -> None:
        """Goes on until cancelled, whatever becomes of Redis."""
        try:
            while True:
                self._wake.clear()
                await self._turn()
                turned, self._turned = self._turned, asyncio.Event()
                turned.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await self._wake.wait()
        finally:
            await self._leave()
            await self._redis.aclose()

    async def _turn(self) -> None:
        try:
            await self._beat()
            if self.outage:
                self._back_at = time.monotonic()
            if self._watchers or self._asked:
                self._asked = False
                self.reading = await self._read()
        except (RedisError, OSError) as error:
            self._failed(error)
        else:
            self.outage = self.refusal = None

    def _failed(self, error: RedisError | OSError) -> None:
        """That Redis is away, the source says already; what this user may not do, it may not meet."""
        try:
            if isinstance(error, RedisError):
                check_redis_operator(error)
        except OperatorError as advice:
            if self.refusal is None:
                logger.warning("this worker can't register: %s", advice)
            self.outage, self.refusal = None, str(advice)
        else:
            self.outage = one_line(error)

    async def _beat(self) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        self._heartbeat.beat(pipeline, self._report())
        taken = self._incidents.take()
        ledger.write(pipeline, self._names.ledger, self._who, taken)
        try:
            await pipeline.execute()
        except (RedisError, OSError):
            self._incidents.put_back(taken)
            raise

    async def _leave(self) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        self._heartbeat.leave(pipeline)
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_LEAVE_WITHIN):
                await pipeline.execute()

    async def _read(self) -> RegistrySnapshot:
        await self._find()
        keys = sorted(self._found)
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.pttl(key)
            pipeline.hgetall(key)
        pipeline.xrevrange(self._names.ledger, count=_LINES)
        pipeline.xrevrange(self._names.log, count=1)
        pipeline.xlen(self._names.log)
        *hashes, lines, head, length = await pipeline.execute()
        records = dict(_records(keys, hashes, time.monotonic() - self._back_at))
        self._found = set(records)
        return RegistrySnapshot(
            time.monotonic(),
            [record for key, record in records.items() if fnmatchcase(key, self._names.listeners)],
            [record for key, record in records.items() if fnmatchcase(key, self._names.workers)],
            ledger.parse(lines),
            head[0][0].decode() if head else None,
            length,
        )

    async def _find(self) -> None:
        """Goes on looking for keys."""
        for _ in range(_SCANS):
            found: Any
            self._cursor, found = await self._redis.scan(self._cursor, match=self._names.processes, count=_SCANNED)
            self._found.update(key.decode() for key in found[: max(0, _MOST_PROCESSES - len(self._found))])
            if not self._cursor:
                break


def _records(keys: Iterable[str], answers: list[Any], most: float) -> Iterator[tuple[str, RegistryEntry]]:
    """What the hashes say; none is older than `most` seconds, for before that nobody could have renewed it."""
    for key, ttl, fields in zip(keys, answers[::2], answers[1::2], strict=True):
        if fields:
            decoded = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
            yield key, RegistryEntry(decoded, min(age(ttl), most))
