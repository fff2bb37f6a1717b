"""What the hashes in Redis say of the processes that keep them alive."""

from collections.abc import Iterable
from typing import NamedTuple, cast

import redis

from app.core.heartbeat import TTL_MS


class Process(NamedTuple):
    """A listener or a worker."""

    key: str
    pod: str
    pid: str
    state: str
    silent_ms: int  # since its last heartbeat
    fields: dict[str, str]  # those that were asked for, empty where there are none

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.pod}:{self.pid}"

    @property
    def is_running(self) -> bool:
        """Whether it has not ended in order."""
        return self.state == "running"


def processes(client: redis.Redis, keys: Iterable[str | bytes], fields: tuple[str, ...]) -> list[Process]:
    """Those whose hashes are still there.

    Raises:
        redis.RedisError: Redis doesn't say.
    """
    names = [key.decode() if isinstance(key, bytes) else key for key in keys]
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.pttl(name)
        pipeline.hmget(name, "pod", "pid", "state", *fields)
    answers = pipeline.execute()
    found = []
    for name, ttl, values in zip(names, answers[::2], answers[1::2], strict=True):
        pod, pid, state, *rest = [(value or b"").decode() for value in values]
        if state:
            silent_ms = TTL_MS - cast("int", ttl)
            found.append(Process(name, pod, pid, state, silent_ms, dict(zip(fields, rest, strict=True))))
    return found
