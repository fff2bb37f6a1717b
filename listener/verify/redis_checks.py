"""The checks of Redis."""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import Any

import msgspec
import redis
from redis.exceptions import RedisError, ResponseError

from app.core.heartbeat import DEAD_SECONDS
from listener.redis_stream import APPEND, entries
from listener.registry import read_entries
from listener.reserves import RESERVE
from listener.verify.result import Check, failed, passed, warned
from notifymux.event import decode
from notifymux.redis_client import describe_redis
from notifymux.redis_errors import WrongServerError, check_server, fault
from notifymux.redis_keys import RedisNames

_OLDEST_MAJOR = 7  # Valkey reports 7 as its redis_version too
_EVERY_EPOCH = "1e300"  # above every epoch, so that the script deletes nothing
_NO_EPOCH = -1  # below every epoch, so that the script reads the head and appends nothing
_MAX_UNROUTABLE = 5  # that are listed
_MAX_DATABASES = 100  # that are looked at
_ALIVE_SECONDS = 60.0  # since a stream's newest event; listeners append a canary every few seconds

Info = dict[str, Any]


class _Unroutable(msgspec.Struct):
    channel: str
    text: str
    events: int


_unroutable = msgspec.json.Decoder(list[_Unroutable])


def connect(client: redis.Redis, url: str) -> tuple[Check, Info | None]:
    """Connect; return the check and the answer to INFO: empty if this user may not ask, None without a connection."""
    text = describe_redis(url)
    try:
        pool = client.connection_pool
        connection: Any = pool.get_connection()
        if connection.found:
            text += f": the primary is {connection.found}"
        pool.release(connection)
        info = _info(client)
    except RedisError as error:
        check = failed_check("Redis", error)
        return check._replace(text=f"{text}: {check.text}"), None
    return passed("Redis", text), info


def _info(client: redis.Redis) -> Info:
    try:
        return client.info()
    except ResponseError:
        return {}  # this user may not


def failed_check(name: str, error: RedisError) -> Check:
    """The failed check for an error."""
    found = fault(error)
    return failed(name, found.what, found.remedy or "start it, or correct REDIS_URL; the listener goes on trying")


def run_checks(client: redis.Redis, names: RedisNames, info: Info, *, is_cluster: bool) -> Iterator[Check]:
    """Run every check on a Redis that `connect` reached; `is_cluster` says that REDIS_URL is for a Cluster."""
    if info:
        yield version(info)
        yield role(info, is_cluster=is_cluster)
        if mode(info) != ("cluster" if is_cluster else "standalone"):
            return
        yield memory(info)
        yield persistence(client, info)
    else:
        yield warned("Redis INFO", "this user may not see version and memory", "give it +info +config|get +select")
    for name, check in (("Redis writes", writes), ("append script", script), ("listeners", listeners)):
        try:
            yield check(client, names)
        except RedisError as error:
            yield failed_check(name, error)
    for name, some in (("Redis databases", other_databases), ("events for no client", unroutable)):
        try:
            yield from some(client, names)
        except RedisError as error:
            yield failed_check(name, error)


def version(info: Info) -> Check:
    """Whether the server is new enough."""
    name = "Redis version"
    valkey = info.get("valkey_version")
    text = f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"
    if int(str(info["redis_version"]).partition(".")[0]) < _OLDEST_MAJOR:
        return failed(name, text, "upgrade it: Redis 7 and Valkey 8 are the oldest that work")
    return passed(name, text)


def mode(info: Info) -> str:
    """The server's kind: `standalone`, `sentinel` or `cluster`."""
    return str(info.get("redis_mode") or info.get("server_mode", "standalone"))  # Valkey has server_mode


def role(info: Info, *, is_cluster: bool) -> Check:
    """Whether it is a server that accepts writes, and of the kind that REDIS_URL is for."""
    name, hello = "Redis role", {"mode": mode(info), "role": info.get("role", "")}
    try:
        check_server(hello, is_cluster=is_cluster)
    except WrongServerError as error:
        return failed(name, error.fault.what, error.fault.remedy)
    return passed(name, "primary, of a Cluster" if is_cluster else "primary")


def memory(info: Info) -> Check:
    """Whether it has memory left, and what it does without."""
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
    """What Redis has after a restart. To have nothing is fine: the listener restores the stream."""
    name = "Redis persistence"
    if info["aof_enabled"]:
        return passed(name, "appendonly yes: after a restart Redis goes on where it was")
    try:
        save = repr(client.config_get("save")["save"])
    except ResponseError:
        save = "(not shown to this user)"
    return passed(name, f"appendonly no, save {save}: after a restart the listener puts back what it remembers")


def writes(client: redis.Redis, names: RedisNames) -> Check:
    """Whether it takes a write, to a key that is gone at once.

    Raises:
        redis.RedisError: it doesn't.
    """
    pipeline = client.pipeline(transaction=False)
    pipeline.hset(names.verify, "at", "0")
    pipeline.pexpire(names.verify, 0)
    pipeline.execute()
    return passed("Redis writes", "it takes them")


def script(client: redis.Redis, names: RedisNames) -> Check:
    """Whether the append script can be loaded and run.

    Raises:
        redis.RedisError: it can't.
    """
    sha = client.script_load(APPEND)
    client.evalsha(sha, 2, names.log, names.counts, names.events, "0", "0", str(_NO_EPOCH), "1", _EVERY_EPOCH, "0")
    return passed("append script", "append.lua is loaded and runs")


def listeners(client: redis.Redis, names: RedisNames) -> Check:
    """Which listeners are alive, with role, position and buffer.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    keys = client.scan_iter(match=names.listeners, count=1000)
    found = read_entries(client, keys, "role", "position", "buffered", "passive", "outage")
    alive = [process for process in found if process.is_running and process.age < DEAD_SECONDS]
    if not alive:
        return failed("listeners", "none is registered here", "supervisorctl status listener; its log says why")
    lines = []
    for process in sorted(alive, key=lambda process: process.name):
        fields = process.fields
        place = f" at {position}" if (position := fields.get("position")) else ""
        line = f"{process.name} {fields.get('role', '')}{place}, {fields.get('buffered') or 0} events held"
        if passive := fields.get("passive"):
            line += f", passive: {passive}"
        if outage := fields.get("outage"):
            line += f", not connected to PostgreSQL: {outage}"
        lines.append(line)
    text = f"{len(alive)}: {'; '.join(lines)}"
    if all(process.fields.get("role") == RESERVE for process in alive):
        return failed("listeners", f"{text}; none holds a session", "supervisorctl status listener; its log says why")
    # One that waits for the replication slot is as passive as it should be.
    if any(process.fields.get("passive") and process.fields.get("role") != "waiting" for process in alive):
        return failed(
            "listeners", text, "give the passive listener the others' PostgreSQL, or a REDIS_NAMESPACE of its own"
        )
    if any(process.fields.get("outage") for process in alive):
        return warned("listeners", text, "the listener goes on trying; see the check of PostgreSQL, in its pod")
    return passed("listeners", text)


def unroutable(client: redis.Redis, names: RedisNames) -> Iterator[Check]:
    """Which events the workers received since they started that no client hears; nothing where none is registered.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    name = "events for no client"
    workers = read_entries(client, client.scan_iter(match=names.workers, count=1000), "unroutable")
    reports = [report for worker in workers if (report := worker.fields.get("unroutable")) is not None]
    if not reports:
        return
    most: dict[str, int] = {}  # every worker receives every event, so the one that has run for longest saw most
    for each in chain.from_iterable(map(_unroutable.decode, reports)):
        what = f"on {each.channel}: {each.text}"
        most[what] = max(most.get(what, 0), each.events)
    if not most:
        yield passed(name, f"none at {len(reports)} workers")
        return
    listed = sorted(most.items(), key=lambda item: item[1], reverse=True)[:_MAX_UNROUTABLE]
    text = "; ".join(f"{events} {what}" for what, events in listed)
    yield warned(name, text, "correct what notifies there (README, The trigger), or ROUTING_KEY")


def other_databases(client: redis.Redis, names: RedisNames) -> Iterator[Check]:
    """Whether another database of this Redis has a stream of this name: what is published there is heard here too.

    Nothing where this user may not see the other databases.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    name, own = "Redis databases", client.connection_pool.connection_kwargs.get("db") or 0
    try:
        found = {int(key[2:]) for key in client.info("keyspace") if re.fullmatch(r"db\d+", key)} - {own}
        ages = {number: _newest_age(client, names, number) for number in sorted(found)[:_MAX_DATABASES]}
    except ResponseError:
        return
    alive = [str(number) for number, age in ages.items() if age is not None and age < _ALIVE_SECONDS]
    if not alive:
        yield passed(name, "no other one has events of this namespace")
        return
    yield warned(
        name,
        f"database {', '.join(alive)} has events of this namespace too, and they arrive here as well: pub/sub knows no "
        "database numbers",
        "give each environment a REDIS_NAMESPACE of its own",
    )


def _newest_age(client: redis.Redis, names: RedisNames, database: int) -> float | None:
    """Return how many seconds ago the newest event of a database's stream was stored; None if it has none."""
    options = {**client.connection_pool.connection_kwargs, "db": database}
    pool = redis.ConnectionPool(client.connection_pool.connection_class, 1, **options)
    with closing(redis.Redis.from_pool(pool)) as other:
        newest = entries(other.xrevrange(names.log, count=1))
    try:
        at = decode(newest[0].text).at if newest else None
    except msgspec.DecodeError:
        return None  # another program's
    return None if at is None else time.time() - at
