"""The registry in Redis: one hash per process, renewed by a heartbeat every second.

This module only queues commands on a pipeline of redis-py's and parses their answers, so it serves synchronous and
asynchronous clients alike.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

HEARTBEAT_SECONDS = 1.0  # between heartbeats
DEAD_SECONDS = 5.0  # a process whose last heartbeat is older than this is dead
_TTL_MS = 60_000  # how long a hash is kept after its last heartbeat


class Heartbeat:
    """Writes one process's hash.

    Args:
        key: the hash.
        wall: the clock, Unix seconds.
        about: the fields that do not change.
    """

    def __init__(self, key: str, wall: Callable[[], float] = time.time, **about: str) -> None:
        self.key, self._wall = key, wall
        self.started = round(wall(), 3)
        self._about: dict[str, str | int] = {**about, "pid": os.getpid(), "started": f"{self.started:.3f}"}

    def beat(self, pipeline: Any, fields: Mapping[str, str | int]) -> int:
        """Queue a heartbeat with the fields that change; return how many fields it writes.

        The answer to its first command says how many of them are new: all, if the hash was not there.
        """
        now = f"{self._wall():.3f}"
        return self._write(pipeline, {**self._about, "state": "running", "beat_at": now, **fields})

    def deregister(self, pipeline: Any) -> None:
        """Queue the record that the process ended in an orderly way."""
        self._write(pipeline, {"state": "stopped"})

    def _write(self, pipeline: Any, fields: dict[str, str | int]) -> int:
        pipeline.hset(self.key, mapping=fields)
        pipeline.pexpire(self.key, _TTL_MS)
        return len(fields)


class RegistryEntry(NamedTuple):
    """One process's hash.

    `age` is the number of seconds since its last heartbeat, derived from the time that the hash has left to live. It
    therefore depends on Redis's clock alone.
    """

    key: str
    fields: Mapping[str, str]
    age: float

    @property
    def name(self) -> str:
        """The process's name for people."""
        return f"{self.fields.get('pod', '')}:{self.fields.get('pid', '')}"

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended in an orderly way. It may have been killed."""
        return self.fields.get("state") == "running"

    def clock_ahead(self, now: float) -> float | None:
        """Return how many seconds the process's clock is ahead of this one's; None if it sends no heartbeats.

        Args:
            now: when the hash was read, by this process's clock, Unix seconds.
        """
        beat_at = self.number("beat_at")
        if beat_at is None or not self.is_running or self.age >= DEAD_SECONDS:
            return None
        return beat_at + self.age - now

    def number(self, name: str) -> float | None:
        """Return a field's value; None if it is missing or no number."""
        try:
            return float(self.fields.get(name, ""))
        except ValueError:
            return None


class RegistryRead:
    """Reads hashes: `queue` queues the commands on a pipeline, and `parse` parses their answers.

    Args:
        keys: the hashes.
        fields: what to read by HMGET besides `pod`, `pid` and `state`; without it, everything is read by HGETALL. A
            listener's Redis user may run only the former, a worker's only the latter (docs/operations.md).
    """

    def __init__(self, keys: Iterable[str | bytes], *fields: str) -> None:
        self._keys = [text_of(key) for key in keys]
        self._fields = ("pod", "pid", "state", *fields) if fields else ()

    def queue(self, pipeline: Any) -> None:
        """Queue two commands for each hash."""
        for key in self._keys:
            pipeline.pttl(key)
            if self._fields:
                pipeline.hmget(key, self._fields)
            else:
                pipeline.hgetall(key)

    def parse(self, answers: Sequence[Any]) -> list[RegistryEntry]:
        """Return the entries of the hashes that exist."""
        entries = []
        for key, ttl_ms, values in zip(self._keys, answers[::2], answers[1::2], strict=True):
            pairs = zip(self._fields, values, strict=True) if self._fields else _pairs(values)
            fields = {text_of(name): text_of(value) for name, value in pairs if value is not None}
            if fields:
                entries.append(RegistryEntry(key, fields, max(0, _TTL_MS - ttl_ms) / 1000))
        return entries


def _pairs(answer: Any) -> Iterable[tuple[Any, Any]]:
    """The fields and values in an answer to HGETALL: a map in RESP3, and a list in RESP2."""
    return answer.items() if isinstance(answer, Mapping) else zip(answer[::2], answer[1::2], strict=True)


def text_of(value: bytes | str) -> str:
    """What Redis stores, as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
