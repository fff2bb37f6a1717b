"""What `verify` asks Redis."""

from collections.abc import Iterator
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from app.core.heartbeat import DEAD_SECONDS
from app.core.operator_errors import OperatorError, check_redis_operator
from app.core.redis_keys import RedisNames
from listener.redis_stream import APPEND
from listener.registry import read_entries
from listener.verify.result import Check, failed, passed, warned
from notifymux.reconnect import one_line
from notifymux.redis_client import describe_redis

_OLDEST = 7  # what Valkey calls its redis_version is 7 as well
_NO_EPOCH = -1  # earlier than every epoch, so that the script looks at the head and appends nothing

Info = dict[str, Any]


def reach(client: redis.Redis, url: str) -> tuple[Check, Info | None]:
    """Connects; with the result goes what Redis says of itself: empty if it won't, None if it can't be reached."""
    try:
        info = client.info()
    except ResponseError:
        info = {}  # it answers, but not this user
    except RedisError as error:
        check = fault("Redis", error)
        return check._replace(text=f"{describe_redis(url)}: {check.text}"), None
    return passed("Redis", describe_redis(url)), info


def fault(name: str, error: RedisError) -> Check:
    """The failed check of this name, and what mends it."""
    try:
        check_redis_operator(error)
    except OperatorError as known:
        return failed(name, known.what, known.remedy)
    return failed(name, one_line(error), "start it, or correct REDIS_URL; the listener goes on trying")


def examine(client: redis.Redis, names: RedisNames, info: Info) -> Iterator[Check]:
    """Every check of a Redis that `reach` reached."""
    if info:
        yield version(info)
        yield role(info)
        yield memory(info)
        yield persistence(client, info)
    else:
        yield warned("Redis INFO", "this user may not see version and memory", "give it +info +config|get")
    for name, check in (("append script", script), ("listeners", listeners)):
        try:
            yield check(client, names)
        except RedisError as error:
            yield fault(name, error)


def version(info: Info) -> Check:
    """Whether it is one that this is made for."""
    name = "Redis version"
    valkey = info.get("valkey_version")
    text = f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"
    if int(str(info["redis_version"]).partition(".")[0]) < _OLDEST:
        return failed(name, text, "upgrade it: Redis 7 and Valkey 8 are the oldest that work")
    return passed(name, text)


def role(info: Info) -> Check:
    """Whether it takes writes, and is one server."""
    name, mode = "Redis role", info.get("redis_mode") or info.get("server_mode", "standalone")  # the latter is Valkey's
    if mode != "standalone":
        return failed(
            name, f"this is a {mode}", "neither Sentinel nor Cluster is supported: set REDIS_URL to one primary"
        )
    if info["role"] != "master":
        return failed(name, "this is a read-only replica", "set REDIS_URL to the primary")
    return passed(name, "primary")


def memory(info: Info) -> Check:
    """Whether it has room, and what it does when it has none."""
    name, policy, most = "Redis memory", info["maxmemory_policy"], info["maxmemory"]
    if not most:
        return passed(name, f"{info['used_memory_human']} used, no maxmemory")
    text = f"{info['used_memory_human']} of {info['maxmemory_human']} used, {policy}"
    if policy.startswith("allkeys-"):
        return warned(name, f"{text}: this may evict the stream", "set maxmemory-policy to noeviction")
    if info["used_memory"] > most:
        return failed(name, f"{text}: writes are refused, and the listener holds events back", "raise maxmemory")
    return passed(name, text)


def persistence(client: redis.Redis, info: Info) -> Check:
    """What a restarted Redis still has. Nothing is well too: the listener puts back what it remembers."""
    name = "Redis persistence"
    if info["aof_enabled"]:
        return passed(name, "appendonly yes: after a restart Redis goes on where it was")
    try:
        save = repr(client.config_get("save")["save"])
    except ResponseError:
        save = "(not shown to this user)"
    return passed(name, f"appendonly no, save {save}: after a restart the listener puts back what it remembers")


def script(client: redis.Redis, names: RedisNames) -> Check:
    """Whether the script that appends can be loaded and run.

    Raises:
        redis.RedisError: it can't.
    """
    sha = client.script_load(APPEND)
    client.evalsha(sha, 1, names.log, names.events, "0", str(_NO_EPOCH), "1", "0")
    return passed("append script", "append.lua is loaded and runs")


def listeners(client: redis.Redis, names: RedisNames) -> Check:
    """Which listeners are alive, and what they do.

    Raises:
        redis.RedisError: Redis doesn't say.
    """
    keys = client.scan_iter(match=names.listeners, count=1000)
    found = read_entries(client, keys, "role", "position", "buffered")
    alive = [process for process in found if process.is_running and process.age < DEAD_SECONDS]
    if not alive:
        return failed("listeners", "none is registered here", "supervisorctl status listener; its log says why")
    said = []
    for process in sorted(alive, key=lambda process: process.name):
        fields = process.fields
        place = f" at {position}" if (position := fields.get("position")) else ""
        said.append(f"{process.name} {fields.get('role', '')}{place}, {fields.get('buffered') or 0} events held")
    return passed("listeners", f"{len(alive)}: {'; '.join(said)}")
