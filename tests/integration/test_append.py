"""append.lua on a real server, compared with its model in the simulation."""

import time
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from listener.redis_stream import RedisStream, StreamBounds
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
# Some texts are larger than what the stream may hold.
APPENDS = st.builds(
    lambda epoch, first, lengths, restore: Append(
        EventId(epoch, first), [b'"%*d"' % (length, first + n) for n, length in enumerate(lengths)], restore
    ),
    st.one_of(st.integers(1, 3), st.just(4_000_000_000_000)),
    st.integers(1, 8),
    st.lists(st.sampled_from([1, 5, 20, 60, 300]), min_size=1, max_size=4),
    st.booleans(),
)
MAX_BYTES = 160


STRANGERS = st.builds(EventId, st.sampled_from(FAR_AHEAD), st.just(1))


@pytest.fixture
def stream(redis_place: RedisPlace) -> RedisStream:
    return new_stream(redis_place, StreamBounds(1000, MAX_BYTES))


def new_stream(redis_place: RedisPlace, bounds: StreamBounds) -> RedisStream:
    names, client = RedisNames(redis_place.namespace), redis_place.client()
    return RedisStream(client, names, bounds, ListenerRegistry(client, names, "pod", "listener", "uid"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(APPENDS, st.just("emptied"), st.just("deleted"), STRANGERS), max_size=12))
def test_the_script_and_its_model_give_the_same_answers(
    stream: RedisStream, redis_place: RedisPlace, steps: list[Append | EventId | str]
) -> None:
    real, model = redis_place.client(), Redis(time.time, MAX_BYTES)
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


def sizes(client: redis.Redis, redis_place: RedisPlace) -> list[int]:
    """Of the stream's texts."""
    found: Any = client.xrange(RedisNames(redis_place.namespace).log)
    return [len(fields[b"event"]) for _, fields in found]


@pytest.mark.parametrize("restore", [False, True])
def test_a_stream_holds_the_newest_events_that_fit_whatever_their_sizes(redis_place: RedisPlace, restore: bool) -> None:
    rng, most, batch = Random(4711), 100_000, 3000
    listeners = [new_stream(redis_place, StreamBounds(100_000, most)) for _ in range(2)]
    client, appended = redis_place.client(), list[int]()
    for step in range(600):
        count = rng.choice([1, 1, 30])
        lengths = [rng.choice([30, 50, 3000] if count == 1 else [30, 50]) for _ in range(count)]
        first = EventId(7, len(appended) + 1)
        append = Append(first, [b"x" * length for length in lengths], restore)
        for each in rng.sample(listeners, rng.choice([1, 2])):  # the other one appends nothing
            each.perform(append)
        appended += lengths
        if step % 10 == 0:
            held = sizes(client, redis_place)
            assert held == appended[-len(held) :]
            assert sum(held) <= most + 2 * batch
            assert len(held) == len(appended) or sum(held) >= most * 7 / 8 - batch
    assert len(sizes(client, redis_place)) < len(appended)
    client.close()


def test_the_last_event_stays_even_if_it_is_larger_than_the_bound(redis_place: RedisPlace) -> None:
    stream, client = new_stream(redis_place, StreamBounds(1000, 100)), redis_place.client()
    for sequence in range(1, 6):
        stream.perform(Append(EventId(7, sequence), [b"x" * 1000]))
        assert sizes(client, redis_place) == [1000] * min(2, sequence)
    client.close()


def test_what_a_listener_of_the_version_before_appended_goes_once_the_bound_is_appended_after_it(
    redis_place: RedisPlace,
) -> None:
    stream, client = new_stream(redis_place, StreamBounds(100_000, 10_000)), redis_place.client()
    key, sequence = RedisNames(redis_place.namespace).log, 0
    for _ in range(3):
        for _ in range(20):  # as that one does, which counts no bytes
            sequence += 1
            client.xadd(key, {"event": b"o" * 1000}, id=f"7-{sequence}")
        for _ in range(25):
            sequence += 1
            stream.perform(Append(EventId(7, sequence), [b"n" * 1000]))
        assert 8 <= len(sizes(client, redis_place)) <= 12
    client.close()
