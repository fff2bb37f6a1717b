"""Heartbeats: a hash in Redis for each process, which it renews every second, so that others see that it lives."""

import os
import time
from collections.abc import Mapping
from typing import Any

HEARTBEAT_SECONDS = 1.0  # seconds between heartbeats
TTL_MS = 60_000  # for so long after the last it still shows that there was one


class Heartbeat:
    """One process's hash. It queues commands on a pipeline of redis-py's, synchronous or asynchronous.

    Args:
        key: the hash.
        about: what it says of the process for good.
    """

    def __init__(self, key: str, **about: str) -> None:
        self.key = key
        self._about: dict[str, str | int] = {**about, "pid": os.getpid(), "started": f"{time.time():.3f}"}

    def beat(self, pipeline: Any, fields: Mapping[str, str | int]) -> None:
        """Writes the hash anew, with what the process is doing."""
        now = f"{time.time():.3f}"
        self._write(pipeline, {**self._about, "state": "running", "beat_at": now, **fields})

    def leave(self, pipeline: Any) -> None:
        """Says that the process ended in order."""
        self._write(pipeline, {"state": "stopped"})

    def _write(self, pipeline: Any, fields: dict[str, str | int]) -> None:
        pipeline.hset(self.key, mapping=fields)
        pipeline.pexpire(self.key, TTL_MS)


def age(ttl_ms: int) -> float:
    """Seconds since the last heartbeat of a hash that lives for `ttl_ms` more: by Redis's clock, and nobody else's."""
    return max(0, TTL_MS - ttl_ms) / 1000
