"""The listeners' registry in Redis: one hash per process, kept alive by heartbeats."""

import os
import time
from typing import Any, cast

import redis

from app.core.names import RedisNames

HEARTBEAT = 1.0  # seconds between heartbeats
_EVERYBODYS_BEAT = 1.5  # seconds in which each living listener has had one
_ALIVE_MS = 5_000  # a hash that was not refreshed for so long is of a dead listener
_TTL_MS = 60_000  # and for so long it still shows that there was one


class Registry:
    """This process's hash, and what the others' say.

    Args:
        client: a connection to Redis.
        names: the names in it.
        pod: this pod's name.
        program: this program's name in the pod; a restarted program finds its own earlier self by it.
        uid: this process's id.
    """

    def __init__(self, client: redis.Redis, names: RedisNames, pod: str, program: str, uid: str) -> None:
        self._redis = client
        self._pattern = names.listeners
        self._key = names.listener(pod, uid)
        self._registered: float | None = None  # since when this process's hash has been there
        self._self: dict[str, str | int] = {
            "pod": pod,
            "program": program,
            "uid": uid,
            "pid": os.getpid(),
            "started": f"{time.time():.3f}",
        }

    def beat(self, fields: dict[str, str | int]) -> None:
        """Writes this process's hash anew.

        Raises:
            redis.RedisError: it could not be.
        """
        pipeline = self._redis.pipeline(transaction=False)
        mapping: dict[Any, Any] = {**self._self, "state": "running", **fields}
        pipeline.hset(self._key, mapping=mapping)
        pipeline.pexpire(self._key, _TTL_MS)
        pipeline.execute()
        self._registered = self._registered or time.monotonic()

    def leave(self) -> None:
        """Says that this process ended in order.

        Raises:
            redis.RedisError: it could not.
        """
        self._redis.hset(self._key, mapping={"state": "stopped"})

    def shows_others(self) -> bool:
        """Whether another listener is alive, or may be.

        A registry without a trace of anybody may have been wiped: it shows something only after everybody who is alive
        has had the time for a heartbeat.

        Raises:
            redis.RedisError: it could not be read.
        """
        keys = {key.decode() for key in self._redis.scan_iter(match=self._pattern, count=1000)}
        if self._key not in keys:
            self._registered = None
            self.beat({})
            return True
        keys.remove(self._key)
        if not keys:
            return self._registered is None or time.monotonic() - self._registered < _EVERYBODYS_BEAT
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.pttl(key)
            pipeline.hmget(key, "pod", "program", "state")
        answers = pipeline.execute()
        return any(
            self._is_other(cast("int", ttl), fields) for ttl, fields in zip(answers[::2], answers[1::2], strict=True)
        )

    def _is_other(self, ttl_ms: int, fields: list[bytes | None]) -> bool:
        pod, program, state = ((field or b"").decode() for field in fields)
        alive = ttl_ms > _TTL_MS - _ALIVE_MS and state == "running"
        return alive and (pod, program) != (self._self["pod"], self._self["program"])
