"""The listeners in the registry: this process's heartbeats, and whether another listener is alive."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import redis

from app.core.heartbeat import DEAD_SECONDS, HEARTBEAT_SECONDS, Heartbeat, RegistryEntry, RegistryRead, text_of
from app.core.incident_log import Incidents, write_incidents
from listener.redis_call import RedisCall
from listener.redis_connection import LastBeat
from listener.reserves import FIELDS, RESERVE, Group, Look, Looked, Own, in_order
from notifymux.background_call import PendingCall
from notifymux.redis_keys import RedisNames

# The longest delay before Redis is tried again. With Redis's timeout and a standby's delay added, it has to stay below
# TAKEOVER_TIMEOUT_SECONDS, for which a new listener waits for another one to append.
REDIS_RETRY_SECONDS = 0.5
_UNANSWERED_SECONDS = 3 * HEARTBEAT_SECONDS
_SCAN_KEYS = 5000  # looked at by one command, which takes Redis about a millisecond
SETTLE_SECONDS = HEARTBEAT_SECONDS + REDIS_RETRY_SECONDS + 0.5  # in which every living listener sends a heartbeat


class ListenerRegistry:
    """Writes this process's hash and reads those of the other listeners.

    Args:
        client: a connection to Redis.
        names: the names of the keys.
        pod: this pod's name.
        program: this program's name in the pod. By both, a restarted listener finds its earlier process's hash.
        instance_id: this process's id, unlike any other's: two living listeners may share a pod's name.
        channels: on which this process LISTENs, for `verify`.
        slot: the replication slot that it reads instead; empty for none.
        database: the database's name.
        start: sends a pipeline's commands; its result is what the third argument makes of the answers.
        monotonic: the clock, in seconds.
        wall: the clock, Unix seconds.
    """

    def __init__(
        self,
        client: redis.Redis,
        names: RedisNames,
        pod: str,
        program: str,
        instance_id: str,
        *,
        channels: Sequence[str] = (),
        slot: str = "",
        database: str = "",
        start: Callable[[redis.Redis, Any, Callable[[Sequence[Any]], Any]], PendingCall] = RedisCall,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._redis, self._names, self._start, self._monotonic = client, names, start, monotonic
        self._pod, self._program, self._instance_id = pod, program, instance_id
        key, listed = names.listener(pod, instance_id), json.dumps(list(channels), ensure_ascii=False)
        reads = {"slot": slot} if slot else {}
        about = {"pod": pod, "program": program, "uid": instance_id, "channels": listed, "database": database, **reads}
        self._heartbeat = Heartbeat(key, wall, **about)
        self.own = Own(key, pod, program, self._heartbeat.started, Group(in_order(listed), slot, database))
        self._registered_at = monotonic()  # since then Redis takes this process's heartbeats
        self._still = _StillHeartbeats()
        self._beats = 0
        self.last_beat: LastBeat | None = None
        self._taken_at = -_UNANSWERED_SECONDS  # when Redis took a heartbeat last

    def beat(self, fields: Mapping[str, str | int], incidents: Incidents) -> None:
        """Send a heartbeat, and write the incidents into the incident log; wait for the answer.

        Raises:
            redis.RedisError: Redis did not take them; the incidents are kept.
        """
        self.start_beat(fields, incidents).result()

    def start_beat(self, fields: Mapping[str, str | int], incidents: Incidents) -> PendingCall:
        """Send a heartbeat, and write the incidents into the incident log. The result is None, or as `beat` raises.

        Raises:
            redis.RedisError: it could not be sent; the incidents are kept.
        """
        pipeline = self._redis.pipeline(transaction=False)
        self._beats += 1
        written = self._heartbeat.beat(pipeline, {**fields, "beats": self._beats})
        drained = incidents.drain()
        write_incidents(pipeline, self._names.ledger, f"{self._pod}/{self._program}", drained)
        beats = self._beats

        def refused() -> None:
            incidents.requeue(drained)
            self._still.forget()
            self._registered_at = self._monotonic()  # others could not register either

        def taken(answers: Sequence[Any]) -> None:
            self.last_beat, self._taken_at = LastBeat(self._heartbeat.key, beats), self._monotonic()
            if answers[0] == written:
                self._registered_at = self._monotonic()

        return _Beat(lambda: self._start(self._redis, pipeline, taken), refused)

    def start_look(self, look: Look) -> PendingCall:
        """Read what `look` asks for. The result is a `Looked`.

        Raises:
            redis.RedisError: it could not be sent.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for key in look.keys:
            pipeline.hmget(key, FIELDS)
        if look.cursor is not None:
            pipeline.scan(look.cursor, match=self._names.listeners, count=_SCAN_KEYS)

        def parse(answers: Sequence[Any]) -> Looked:
            cursor, found = answers[-1] if look.cursor is not None else (0, ())
            hashes = {
                key: {name: text_of(value) for name, value in zip(FIELDS, values, strict=True) if value is not None}
                for key, values in zip(look.keys, answers, strict=False)
            }
            listeners = {key: fields for key, fields in hashes.items() if fields}
            return Looked(int(cursor), frozenset(map(text_of, found)), listeners)

        return self._start(self._redis, pipeline, parse)

    def is_answered(self) -> bool:
        """Whether Redis has taken a heartbeat within the last three seconds. Any thread may ask."""
        return self._monotonic() - self._taken_at < _UNANSWERED_SECONDS

    def deregister(self) -> None:
        """Record that this process ended in an orderly way.

        Another listener takes the record for proof that the registry was not wiped, unless it is a reserve's, or says
        that it was young.

        Raises:
            redis.RedisError: Redis did not take it.
        """
        self.beat({}, Incidents())
        pipeline = self._redis.pipeline(transaction=False)
        if self._is_young:
            pipeline.hset(self._heartbeat.key, mapping={"young": 1})
        self._heartbeat.deregister(pipeline)
        pipeline.execute()

    def other_listener_alive(self) -> bool:
        """Return whether another listener is or may be alive, by one look.

        Heartbeats are compared with each other and not with the clock, because Redis may have been unreachable for
        every listener until now. A registry without any older hash may have been wiped: it proves that there is no
        other listener only after SETTLE_SECONDS. So does a hash of this pod and program whose heartbeat stands still:
        it is an earlier process of this listener. One whose heartbeat goes on is another listener of the same name.
        A reserve is not there for anybody, because it has no session. Its hash does not show either that there was no
        wipe: it may have been written since, before those that hold a session write theirs.

        Raises:
            redis.RedisError: the registry can't be read.
        """
        try:
            return self._other_listener_alive(self._monotonic())
        except redis.RedisError:
            self._still.forget()
            raise

    def _other_listener_alive(self, now: float) -> bool:
        keys = {key.decode() for key in self._redis.scan_iter(match=self._names.listeners, count=_SCAN_KEYS)}
        if self._heartbeat.key not in keys:
            self.beat({}, Incidents())
            return True
        keys.remove(self._heartbeat.key)
        found = read_entries(self._redis, keys, "program", "role", "beat_at", "young")
        if keys and not found:  # wiped between the two requests
            return True
        if all(map(_may_follow_a_wipe, found)):
            return self._is_young
        latest = min(entry.age for entry in found)
        running = [entry for entry in found if _is_at_work(entry) and entry.age - latest < DEAD_SECONDS]
        stopped = self._still.stopped({entry.key: entry.fields.get("beat_at", "") for entry in running}, now)
        return any(entry.key not in stopped or not self._has_this_name(entry) for entry in running)

    @property
    def _is_young(self) -> bool:
        """Whether the registry may have been wiped, and other listeners had no time to register since."""
        return self._monotonic() - self._registered_at < SETTLE_SECONDS

    def _has_this_name(self, entry: RegistryEntry) -> bool:
        return (entry.fields.get("pod"), entry.fields.get("program")) == (self._pod, self._program)


def _is_at_work(entry: RegistryEntry) -> bool:
    return entry.is_running and entry.fields.get("role") != RESERVE


def _may_follow_a_wipe(entry: RegistryEntry) -> bool:
    """Whether a hash may be the first one that was written after a wipe: a reserve's, or a young record."""
    return "young" in entry.fields or entry.fields.get("role") == RESERVE


class _Beat:
    """A heartbeat that was sent; `refused` is called if Redis does not take it.

    Raises:
        redis.RedisError: it could not be sent.
    """

    def __init__(self, start: Callable[[], PendingCall], refused: Callable[[], None]) -> None:
        self._refused = refused
        self._call = self._checked(start)

    def _checked(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except redis.RedisError:
            self._refused()
            raise

    def fileno(self) -> int:
        return int(self._call.fileno())

    @property
    def is_done(self) -> bool:
        return bool(self._call.is_done)

    def result(self) -> Any:
        return self._checked(self._call.result)


class _StillHeartbeats:
    """Which heartbeats have stood still for SETTLE_SECONDS in which Redis answered."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, float]] = {}  # by key: the last `beat_at`, and when it was first seen
        self._seen_at = 0.0

    def stopped(self, beats: Mapping[str, str], now: float) -> set[str]:
        """Return the keys that have stopped, of those in `beats`, which has their last heartbeats."""
        if now - self._seen_at > HEARTBEAT_SECONDS:
            self._since = {}  # this process was frozen, perhaps with all others
        self._seen_at = now
        known = self._since
        self._since = {
            key: known[key] if key in known and known[key][0] == beat else (beat, now) for key, beat in beats.items()
        }
        return {key for key, (_, since) in self._since.items() if now - since >= SETTLE_SECONDS}

    def forget(self) -> None:
        """Start anew: while Redis does not answer, nobody can send a heartbeat."""
        self._since = {}


def read_entries(client: redis.Redis, keys: Iterable[str | bytes], *fields: str) -> list[RegistryEntry]:
    """Return the registry entries at `keys` that exist, with `pod`, `pid`, `state` and `fields`.

    Raises:
        redis.RedisError: they can't be read.
    """
    read = RegistryRead(keys, *fields)
    pipeline = client.pipeline(transaction=False)
    read.queue(pipeline)
    return read.parse(pipeline.execute())
