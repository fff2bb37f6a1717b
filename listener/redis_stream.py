"""The stream in Redis: performs the sequencer's requests."""

import time
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoScriptError

from listener.redis_call import CallOf, RedisCall
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
from notifymux.background_call import PendingCall
from notifymux.event import MUX_CHANNEL, EventId, encode
from notifymux.redis_keys import EVENT_FIELD, RedisNames

APPEND = (files(__package__) / "append.lua").read_text()

_FIELD = EVENT_FIELD.encode()


class StreamBounds(NamedTuple):
    """How much of the stream's newest entries is kept, whichever is less."""

    entries: int  # about
    bytes: int  # of texts, and up to two batches more


class RedisStream:
    """One stream.

    Args:
        client: a connection to Redis.
        names: of the keys and channels.
        bounds: about how much of the newest entries to keep.
        registry: shows whether other listeners are alive.
    """

    def __init__(
        self, client: redis.Redis, names: RedisNames, bounds: StreamBounds, registry: ListenerRegistry
    ) -> None:
        self._redis, self._names, self._bounds, self._registry = client, names, bounds, registry
        self._sha = sha1(APPEND.encode(), usedforsecurity=False).hexdigest()
        self._is_loaded = False  # whether Redis has the script

    def check_publish(self, at: float) -> None:
        """Publish a message that no client receives, so that a missing permission shows before the first event.

        Raises:
            redis.RedisError: Redis refuses it, or is away.
        """
        self._redis.publish(self._names.events, encode(MUX_CHANNEL, b'{"hello":true}', at))

    def perform(self, request: Request) -> Answer:
        """Perform one request, and wait for the answer.

        Raises:
            redis.RedisError: Redis refuses it, or is away.
        """
        answer: Answer = self.start(request).result()
        return answer

    def start(self, request: Request) -> PendingCall:
        """Send one request; its result is the answer. To repeat it is harmless.

        Raises:
            redis.RedisError: Redis is away.
        """
        key = self._names.log
        pipeline: Any = self._redis.pipeline(transaction=False)
        match request:
            case CheckOtherListeners():
                return CallOf(self._registry.other_listener_alive)
            case ReadHead():
                pipeline.xrevrange(key, "+", "-", count=1)
                return RedisCall(self._redis, pipeline, _head)
            case ReadAfter(after, limit):
                pipeline.xrange(key, f"({after}", "+", count=limit)
                return RedisCall(self._redis, pipeline, _entries)
            case ReadRecent(limit, until):
                pipeline.xrevrange(key, str(until) if until else "+", "-", count=limit)
                return RedisCall(self._redis, pipeline, _entries)
            case ReadEntry(at):
                pipeline.xrange(key, str(at), str(at))
                return RedisCall(self._redis, pipeline, _text)
            case Append(first, texts, restore, after):
                latest = max(first.epoch, int(time.time() * 1000)) + MAX_EPOCH_AHEAD_MS
                what = *first, latest, int(restore), after
                arguments: list[Any] = [self._names.events, *self._bounds, *what, *texts]
                if not self._is_loaded:
                    pipeline.script_load(APPEND)
                pipeline.evalsha(self._sha, 2, key, self._names.counts, *arguments)
                return _AppendCall(self, request, RedisCall(self._redis, pipeline, _appended))

    def loaded(self, *, is_loaded: bool) -> None:
        """Record whether Redis has the script."""
        self._is_loaded = is_loaded


class _AppendCall:
    """An append. A Redis that was restarted does not have the script: then the request is sent once more, with it."""

    def __init__(self, stream: RedisStream, request: Append, call: RedisCall) -> None:
        self._stream, self._request, self._call = stream, request, call

    def fileno(self) -> int:
        return self._call.fileno()

    @property
    def is_done(self) -> bool:
        return self._call.is_done

    def result(self) -> Any:
        try:
            result = self._call.result()
        except NoScriptError:
            self._stream.loaded(is_loaded=False)
            return self._stream.perform(self._request)
        self._stream.loaded(is_loaded=True)
        return result


def _head(answers: Sequence[Any]) -> EventId | None:
    last = entries(answers[0])
    return last[0].id if last else None


def _entries(answers: Sequence[Any]) -> list[StreamEntry]:
    return entries(answers[0])


def _text(answers: Sequence[Any]) -> bytes | None:
    found = entries(answers[0])
    return found[0].text if found else None


def _appended(answers: Sequence[Any]) -> AppendResult:
    status, epoch, sequence, added = answers[-1]  # after that of SCRIPT LOAD
    return AppendResult(AppendStatus(status.decode()), EventId(epoch, sequence), added)


def entries(answer: Any) -> list[StreamEntry]:
    """The entries in an answer to XRANGE or XREVRANGE."""
    return [StreamEntry(EventId.parse(key.decode()), fields.get(_FIELD, b"null")) for key, fields in answer]
