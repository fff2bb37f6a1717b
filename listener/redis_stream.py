"""The stream in Redis: performs the sequencer's requests."""

import time
from importlib.resources import files
from typing import Any

import redis

from app.core.canary import MUX_CHANNEL
from app.core.redis_keys import EVENT_FIELD, RedisNames
from listener.registry import ListenerRegistry
from listener.sequencer.process_state import MAX_EPOCH_AHEAD_MS
from listener.sequencer.redis_requests import (
    Answer,
    Append,
    AppendResult,
    AppendStatus,
    CheckOtherListeners,
    ReadAfter,
    ReadEntry,
    ReadHead,
    ReadRecent,
    Request,
    StreamEntry,
)
from notifymux.event import EventId, encode

APPEND = (files(__package__) / "append.lua").read_text()

_FIELD = EVENT_FIELD.encode()


class RedisStream:
    """One stream.

    Args:
        client: a connection to Redis.
        names: of the keys and channels.
        maxlen: about how many entries to keep.
        registry: shows whether other listeners are alive.
    """

    def __init__(self, client: redis.Redis, names: RedisNames, maxlen: int, registry: ListenerRegistry) -> None:
        self._redis, self._names, self._maxlen, self._registry = client, names, maxlen, registry
        self._append = client.register_script(APPEND)

    def check_publish(self, at: float) -> None:
        """Publish a message that no client receives, so that a missing permission shows before the first event.

        Raises:
            redis.RedisError: Redis refuses it, or is away.
        """
        self._redis.publish(self._names.events, encode(MUX_CHANNEL, b'{"hello":true}', at))

    def perform(self, request: Request) -> Answer:
        """Perform one request. To repeat it is harmless.

        Raises:
            redis.RedisError: Redis refuses it, or is away.
        """
        key = self._names.log
        match request:
            case ReadHead():
                last = entries(self._redis.xrevrange(key, "+", "-", count=1))
                return last[0].id if last else None
            case CheckOtherListeners():
                return self._registry.other_listener_alive()
            case ReadAfter(after, limit):
                return entries(self._redis.xrange(key, f"({after}", "+", count=limit))
            case ReadRecent(limit):
                return entries(self._redis.xrevrange(key, "+", "-", count=limit))
            case ReadEntry(at):
                found = entries(self._redis.xrange(key, str(at), str(at)))
                return found[0].text if found else None
            case Append(first, texts, restore):
                latest = max(first.epoch, int(time.time() * 1000)) + MAX_EPOCH_AHEAD_MS
                arguments: list[Any] = [self._names.events, self._maxlen, *first, latest, int(restore), *texts]
                status, epoch, sequence, added = self._append(keys=[key], args=arguments)
                return AppendResult(AppendStatus(status.decode()), EventId(epoch, sequence), added)


def entries(answer: Any) -> list[StreamEntry]:
    """The entries in an answer to XRANGE or XREVRANGE."""
    return [StreamEntry(EventId.parse(key.decode()), fields.get(_FIELD, b"null")) for key, fields in answer]
