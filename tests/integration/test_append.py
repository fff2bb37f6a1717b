"""append.lua on a real server, compared with its model in the simulation."""

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from listener.redis_stream import RedisStream
from listener.registry import ListenerRegistry
from listener.sequencer.redis_requests import (
    Append,
    AppendResult,
    AppendStatus,
    ReadAfter,
    ReadHead,
    ReadRecent,
    Request,
    StreamEntry,
)
from notifymux.event import EventId
from notifymux.redis_keys import RedisNames
from tests.conftest import RedisPlace
from tests.simulation.redis import Redis

# A head more than a day ahead of every clock was written by a stranger. Lua's numbers are doubles.
FAR_AHEAD = (1 << 53, (1 << 63) - 1)
APPENDS = st.builds(
    lambda epoch, first, count, restore: Append(
        EventId(epoch, first), [f'"{epoch}-{first + n}"'.encode() for n in range(count)], restore
    ),
    st.one_of(st.integers(1, 3), st.just(4_000_000_000_000)),
    st.integers(1, 8),
    st.integers(1, 4),
    st.booleans(),
)


STRANGERS = st.builds(EventId, st.sampled_from(FAR_AHEAD), st.just(1))


@pytest.fixture
def stream(redis_place: RedisPlace) -> RedisStream:
    names, client = RedisNames(redis_place.namespace), redis_place.client()
    return RedisStream(client, names, 1000, ListenerRegistry(client, names, "pod", "listener", "uid"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(APPENDS, st.just("emptied"), st.just("deleted"), STRANGERS), max_size=12))
def test_the_script_and_its_model_give_the_same_answers(
    stream: RedisStream, redis_place: RedisPlace, steps: list[Append | EventId | str]
) -> None:
    real, model = redis_place.client(), Redis(time.time)
    key = RedisNames(redis_place.namespace).log
    real.delete(key)
    for step in steps:
        if isinstance(step, Append):
            assert stream.perform(step) == model.append(step)
        elif isinstance(step, EventId):
            with suppress(ResponseError):  # an emptied stream remembers its last id
                real.xadd(key, {"event": b'"a stranger"'}, id=str(step))
                model.add(StreamEntry(step, b'"a stranger"'), publish=False)
        elif step == "emptied":
            real.xtrim(key, maxlen=0, approximate=False)
            model.wipe()
        else:
            real.delete(key)
            model.wipe()
        assert stream.perform(ReadRecent(100)) == model.entries[::-1]
        assert stream.perform(ReadHead()) == model.head
    real.close()


def test_restored_events_are_not_published_again(stream: RedisStream, redis_place: RedisPlace) -> None:
    client = redis_place.client()
    pubsub: Any = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    pubsub.subscribe(RedisNames(redis_place.namespace).events)
    while pubsub.get_message(timeout=1) is not None or not pubsub.subscribed:
        pass
    stream.perform(Append(EventId(7, 3), [b'"restored"'], restore=True))
    stream.perform(Append(EventId(7, 4), [b'"appended"']))
    message = None
    while message is None:
        message = pubsub.get_message(timeout=5)
    assert message["data"] == b'"appended"'
    pubsub.close()
    client.close()


def test_a_repeated_append_adds_nothing(stream: RedisStream, redis_place: RedisPlace) -> None:
    first: Request = Append(EventId(7, 1), [b'"1"'])
    assert stream.perform(first) == AppendResult(*_ok(7, 1, added=1))
    # The same ids again are harmless (rule 12): nothing is added, and the head is what it was.
    assert stream.perform(first) == AppendResult(*_ok(7, 1, added=0))
    assert stream.perform(ReadAfter(EventId(0, 0), 10)) == [StreamEntry(EventId(7, 1), b'"1"')]


def _ok(epoch: int, sequence: int, added: int) -> tuple[Any, EventId, int]:
    return AppendStatus.OK, EventId(epoch, sequence), added
