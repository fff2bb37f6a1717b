"""The stream in Redis: carries out what the numbering asks."""

from importlib.resources import files
from typing import Any

import redis

from app.core.config import MUX_CHANNEL
from app.core.redis_keys import EVENT_FIELD, RedisNames
from listener.registry import ListenerRegistry
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
        names: the names in it.
        maxlen: about how many entries are kept.
        registry: tells who else is there.
    """

    def __init__(self, client: redis.Redis, names: RedisNames, maxlen: int, registry: ListenerRegistry) -> None:
        self._redis, self._names, self._maxlen, self._registry = client, names, maxlen, registry
        self._append = client.register_script(APPEND)

    def probe(self, at: float) -> None:
        """Publishes a greeting on our own channel, so that a missing permission shows before an event depends on it.

        Raises:
            redis.RedisError: it was refused, or Redis is away.
        """
        self._redis.publish(self._names.events, encode(MUX_CHANNEL, b'{"hello":true}', at))

    def perform(self, request: Request) -> Answer:
        """Carries out one request.

        Raises:
            redis.RedisError: it was refused, or Redis is away; asking again is harmless.
        """
        key = self._names.log
        match request:
            case ReadHead():
                return self._head()
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
                arguments: list[Any] = [self._names.events, self._maxlen, *first, int(restore), *texts]
                status, epoch, sequence, added = self._append(keys=[key], args=arguments)
                return AppendResult(AppendStatus(status.decode()), EventId(epoch, sequence), added)

    def _head(self) -> EventId | None:
        last = entries(self._redis.xrevrange(self._names.log, "+", "-", count=1))
        return last[0].id if last else None


def entries(answer: Any) -> list[StreamEntry]:
    """What XRANGE and XREVRANGE answered."""
    return [StreamEntry(EventId.parse(key.decode()), fields.get(_FIELD, b"null")) for key, fields in answer]
