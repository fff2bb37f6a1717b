"""Traces a canary, on our own channel or on every one, from its commit through listener and Redis to each worker."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import psycopg
import redis

from app.core.canary import VERIFY_PREFIX
from app.core.clock_difference import CLOCK_TOLERANCE_SECONDS
from app.core.heartbeat import DEAD_SECONDS, RegistryEntry
from app.core.postgres import literal
from app.core.postgres_connect import query
from listener.redis_stream import entries
from listener.registry import read_entries
from listener.verify.result import Check, failed, passed, warned
from listener.wal.pgoutput import PREFIX
from notifymux.event import MUX_CHANNEL, Event, EventId, decode
from notifymux.redis_keys import RedisNames

_TIMEOUT_SECONDS = 5.0  # for each hop
_POLL_SECONDS = 0.05
_SCAN_COUNT = 1000
_RESTART_LISTENER = "supervisorctl restart listener, which reads NOTIFY_CHANNELS again"
_LISTENS = {
    "notify": ("LISTENs on it", "does not LISTEN on it"),
    "wal": ("reads it out of the WAL", "does not read it out of the WAL"),
}  # what a listener does with a channel, or doesn't, by SOURCE
_FIELDS = ("mode", "position", "verified", "verified_at", "fed")


class Setup(NamedTuple):
    """What the settings say: channels, what a listener's `fingerprint` is that has them, SOURCE, the workers' mode."""

    channels: Sequence[str]
    fingerprint: str
    source: str
    workers_use_redis: bool


def trace_canary(
    connection: psycopg.Connection, client: redis.Redis, names: RedisNames, setup: Setup, *, send: bool
) -> Iterator[Check]:
    """Send a canary on our own channel, and check where it arrives, and whether the listener has the others.

    With `send`, one is sent on each channel too, all in one transaction: every program that LISTENs there hears it.

    Raises:
        psycopg.Error, redis.RedisError: a server fails meanwhile.
    """
    workers = _workers(client, names, wait=setup.workers_use_redis)
    newest = entries(client.xrevrange(names.log, "+", "-", count=1))
    head = newest[0].id if newest else EventId(0, 0)
    token = f"{VERIFY_PREFIX}{uuid.uuid4().hex}"
    sent = time.time()
    # No client receives it: the payload names no match, and with ROUTING_KEY=verify it names one that nobody watches.
    sql = _send_sql(setup.source, [*(setup.channels if send else []), MUX_CHANNEL], json.dumps({"verify": token}))
    query(connection.pgconn, sql, _TIMEOUT_SECONDS)
    found = _in_stream(client, names, head, token)
    if MUX_CHANNEL not in found:
        yield failed(
            "canary",
            f"PostgreSQL took it, and no listener appended it within {_TIMEOUT_SECONDS:g} s",
            "supervisorctl status listener; its log says why. A listener of another DB_NAME does not hear this one",
        )
        return
    if send:
        for channel in setup.channels:
            yield _sent(channel, found.get(channel), sent, setup.source)
    else:
        is_same_setup = found[MUX_CHANNEL].fingerprint == setup.fingerprint
        keys = client.scan_iter(match=names.listeners, count=_SCAN_COUNT)
        alive = read_entries(client, keys, "channels")
        yield from listening(setup.channels, alive, setup.source, is_same_setup=is_same_setup)
    yield from _received(client, workers, token, sent, workers_use_redis=setup.workers_use_redis)


def _send_sql(source: str, channels: Sequence[str], payload: str) -> str:
    channel = f"unnest(ARRAY[{', '.join(map(literal, channels))}])"
    if source == "wal":
        return f"SELECT pg_logical_emit_message(true, {literal(PREFIX.decode())} || {channel}, {literal(payload)})"
    return f"SELECT pg_notify({channel}, {literal(payload)})"


def listening(
    channels: Sequence[str], listeners: Sequence[RegistryEntry], source: str = "notify", *, is_same_setup: bool
) -> Iterator[Check]:
    """Check whether a listener receives each channel, without an event there.

    Args:
        channels: what the settings name.
        listeners: the registry's entries, which have what each listener LISTENs on; an older one does not say.
        source: SOURCE.
        is_same_setup: the listener at work has these channels and no others, as its canary says.
    """
    does, does_not = _LISTENS[source]
    alive = [listener for listener in listeners if listener.is_running and listener.age < DEAD_SECONDS]
    listed = {channel for entry in alive for channel in _channels(entry)}
    silent = [entry.name for entry in alive if "channels" not in entry.fields]
    for channel in channels:
        name = f"channel {channel}"
        if is_same_setup or channel in listed:
            yield passed(name, f"the listener {does}; not tried without --send")
        elif silent:
            yield warned(
                name,
                f"not known: listener {', '.join(silent)}, of an earlier version, has other channels",
                "supervisorctl restart listener, which reads NOTIFY_CHANNELS again; or verify --send",
            )
        else:
            yield failed(name, f"the listener {does_not}", _RESTART_LISTENER)


def _channels(listener: RegistryEntry) -> list[str]:
    try:
        return msgspec.json.decode(listener.fields.get("channels", "[]"), type=list[str])
    except msgspec.DecodeError:
        return []


def _workers(client: redis.Redis, names: RedisNames, *, wait: bool) -> list[str]:
    """The keys of the workers that receive from Redis; with `wait`, after they have had the time to start."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        found = read_entries(client, client.scan_iter(match=names.workers, count=_SCAN_COUNT), *_FIELDS)
        found = [worker for worker in found if worker.is_running and worker.fields.get("mode") != "postgres"]
        ready = bool(found) and all(worker.fields.get("position") for worker in found)
        if ready or not wait or time.monotonic() > deadline:
            return [worker.key for worker in found]
        time.sleep(_POLL_SECONDS)


def _in_stream(client: redis.Redis, names: RedisNames, after: EventId, token: str) -> dict[str, Event]:
    """The canaries by channel. The one on our own channel was sent last, so after it no other can follow."""
    found: dict[str, Event] = {}
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while MUX_CHANNEL not in found and time.monotonic() < deadline:
        batch = entries(client.xrange(names.log, f"({after}", "+", count=_SCAN_COUNT))
        for entry in batch:
            after = entry.id
            if token.encode() in entry.text:
                event = decode(entry.text)
                found[event.channel] = event
        if len(batch) < _SCAN_COUNT:
            time.sleep(_POLL_SECONDS)
    return found


def _sent(channel: str, event: Event | None, sent: float, source: str) -> Check:
    name = f"channel {channel}"
    if event is None:
        return failed(
            name,
            f"notified, and not forwarded: the listener {_LISTENS[source][1]}",
            _RESTART_LISTENER,
        )
    return passed(name, f"in the stream as {event.id}, read by the listener after {_ms((event.at or sent) - sent)}")


def _received(
    client: redis.Redis, workers: list[str], token: str, sent: float, *, workers_use_redis: bool
) -> Iterator[Check]:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        alive = [worker for worker in read_entries(client, workers, *_FIELDS) if worker.is_running]
        if all(worker.fields.get("verified") == token for worker in alive) or time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    for worker in sorted(alive, key=lambda worker: worker.name):
        yield _worker(worker, token, sent)
    if not alive and workers_use_redis:
        yield failed("workers", "none is registered in Redis", "supervisorctl restart app; its log says why")
    elif not alive:
        yield warned(
            "workers",
            "none hears Redis (USE_REDIS_NOTIFIER=false), so the canary can't be followed to them",
            "their own /readyz tells whether they hear PostgreSQL",
        )


def _worker(worker: RegistryEntry, token: str, sent: float) -> Check:
    name = f"worker {worker.name}"
    if worker.fields.get("verified") == token:
        by = "by the feed " if worker.fields.get("fed") == "1" else ""
        return passed(name, f"heard {by}after {_ms(float(worker.fields['verified_at']) - sent)}")
    return failed(
        name,
        f"did not hear it within {_TIMEOUT_SECONDS:g} s; its last heartbeat was {worker.age:.0f} s ago",
        "supervisorctl restart app in its pod; one that was killed is forgotten a minute after",
    )


def _ms(seconds: float) -> str:
    if not -CLOCK_TOLERANCE_SECONDS < seconds < _TIMEOUT_SECONDS + CLOCK_TOLERANCE_SECONDS:
        return f"an unknown time: two clocks differ by about {abs(seconds):.0f} s"
    return f"{round(1000 * seconds)} ms"  # events have their times in milliseconds
