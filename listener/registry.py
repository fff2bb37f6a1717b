"""The listeners' registry in Redis: one hash per process, kept alive by heartbeats."""

import time
from collections.abc import Mapping
from typing import NamedTuple, cast

import redis

from app.core import incident_log as ledger
from app.core.heartbeat import HEARTBEAT_SECONDS, Heartbeat
from app.core.incident_log import Incidents
from app.core.redis_keys import RedisNames

# Redis is asked again at most so many seconds apart after it was away: with its timeout and a standby's delay, less
# than the bound for which a newcomer waits for somebody to append.
REDIS_RETRY = 0.5
_EVERYBODYS_BEAT = HEARTBEAT_SECONDS + REDIS_RETRY + 0.5  # seconds in which each living listener has had a heartbeat
DEAD_MS = 5_000  # so much older than another's is the last heartbeat of a dead listener


class ListenerRegistry:
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
        self._pattern, self._ledger = names.listeners, names.ledger
        self._pod, self._program, self._uid = pod, program, uid
        self._heartbeat = Heartbeat(names.listener(pod, uid), pod=pod, program=program, uid=uid)
        self._registered = time.monotonic()  # since when this process's hash has been there

    def beat(self, fields: Mapping[str, str | int], incidents: Incidents) -> None:
        """Writes this process's hash anew, and what happened into the ledger.

        Raises:
            redis.RedisError: it could not be.
        """
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hsetnx(self._heartbeat.key, "uid", self._uid)
        self._heartbeat.beat(pipeline, fields)
        taken = incidents.take()
        ledger.write(pipeline, self._ledger, f"{self._pod}/{self._program}", taken)
        try:
            is_new, *_ = pipeline.execute()
        except redis.RedisError:
            incidents.put_back(taken)
            raise
        if is_new:
            self._registered = time.monotonic()

    def leave(self) -> None:
        """Says that this process ended in order.

        Raises:
            redis.RedisError: it could not.
        """
        pipeline = self._redis.pipeline(transaction=False)
        self._heartbeat.leave(pipeline)
        pipeline.execute()

    def shows_others(self) -> bool:
        """Whether another listener is alive, or may be.

        Heartbeats are compared with each other, for Redis may have been away from everybody until just now. And a
        registry without a trace of anybody may have been wiped: it shows something only after everybody who is alive
        has had the time for a heartbeat.

        Raises:
            redis.RedisError: it could not be read.
        """
        keys = {key.decode() for key in self._redis.scan_iter(match=self._pattern, count=1000)}
        if self._heartbeat.key not in keys:
            self.beat({}, Incidents())
            return True
        keys.remove(self._heartbeat.key)
        if not keys:
            return time.monotonic() - self._registered < _EVERYBODYS_BEAT
        traces = self._traces(keys)
        latest = max(trace.ttl_ms for trace in traces)
        return any(self._is_other(trace) and latest - trace.ttl_ms < DEAD_MS for trace in traces)

    def _traces(self, keys: set[str]) -> list["_Trace"]:
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.pttl(key)
            pipeline.hmget(key, "pod", "program", "state")
        answers = pipeline.execute()
        return [
            _Trace(cast("int", ttl), *((field or b"").decode() for field in fields))
            for ttl, fields in zip(answers[::2], answers[1::2], strict=True)
        ]

    def _is_other(self, trace: "_Trace") -> bool:
        return trace.state == "running" and (trace.pod, trace.program) != (self._pod, self._program)


class _Trace(NamedTuple):
    """What a hash shows of a listener: the longer it has to live, the later its last heartbeat."""

    ttl_ms: int
    pod: str
    program: str
    state: str
