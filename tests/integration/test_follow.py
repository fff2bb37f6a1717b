"""`notifymux.follow` with a real listener, PostgreSQL and Redis: every event once and in order, or a gap."""

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from typing import Any

import psycopg
import pytest
import redis

from notifymux import Event, EventId, Follower, Gap, GapReason, RedisNotifierService, follow
from notifymux.redis_keys import RedisNames
from notifymux.redis_url import RedisUrlError
from tests.conftest import RedisPlace, StartListener
from tests.support.documents import OPERATIONS, flat
from tests.support.loops import async_test, running, wait_until_async
from tests.support.servers import Servers

NOTIFY = "SELECT pg_notify(%s, n::text) FROM generate_series(%s::int, %s::int) n"


def notify(connection: psycopg.Connection, first: int, last: int, channel: str = "match_change") -> None:
    connection.execute(NOTIFY, [channel, first, last])


class Consumer:
    """Iterates a follower to its end, and notes what it yields."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.items: list[Event | Gap] = []

    async def run(self) -> None:
        async for item in self.follower:
            self.items.append(item)

    @property
    def numbers(self) -> list[int]:
        return [item.json() for item in self.items if isinstance(item, Event)]

    @property
    def gaps(self) -> list[GapReason]:
        return [item.why for item in self.items if isinstance(item, Gap)]

    async def has(self, last: int) -> None:
        await wait_until_async(lambda: self.numbers[-1:] == [last], what=f"{last}; the last are {self.numbers[-3:]}")


@asynccontextmanager
async def consuming(url: str, **options: Any) -> AsyncIterator[Consumer]:
    """A consumer that iterates a follower, and has started."""
    consumer = Consumer(follow(url, **options))
    async with running(consumer.run()):
        if options.get("after") is None:
            await wait_until_async(lambda: consumer.items)
        yield consumer
    assert all(item.channel != "pg_notify_mux" for item in consumer.items if isinstance(item, Event))


@pytest.fixture
def place(settings: dict[str, str], redis_place: RedisPlace, start_listener: StartListener) -> RedisPlace:
    """A place to which a listener writes."""
    start_listener(settings).wait_until_aligned()
    return redis_place


@pytest.fixture
def own(servers: Servers) -> Iterator[psycopg.Connection]:
    """A session on servers that the test may stop."""
    with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def own_settings(servers: Servers) -> dict[str, str]:
    return servers.settings | {"CANARY_INTERVAL": "0.5"}


@async_test
async def test_events_follow_a_first_gap_once_and_in_order(place: RedisPlace, connection: psycopg.Connection) -> None:
    notify(connection, 1, 10)
    with closing(place.client()) as client:
        await wait_until_async(lambda: ids_of(client, place, 10))
    async with consuming(place.url, namespace=place.namespace) as consumer:
        notify(connection, 11, 2000)
        await consumer.has(2000)
        assert consumer.gaps == [GapReason.SESSION]
        assert consumer.numbers == list(range(11, 2001))
        event = consumer.items[-1]
        assert isinstance(event, Event)
        assert (event.channel, event.json()) == ("match_change", 2000)
        ids = [EventId.parse(str(item.id)) for item in consumer.items if isinstance(item, Event)]
        assert ids == sorted(set(ids))


@async_test
async def test_whoever_resumes_gets_what_came_meanwhile_and_no_gap(
    place: RedisPlace, connection: psycopg.Connection
) -> None:
    after, received = None, list[int]()
    for first in range(1, 501, 100):
        async with aclosing(follow(place.url, after=after, namespace=place.namespace)) as items:
            if after is None:
                assert isinstance(await anext(items), Gap)
            notify(connection, first, first + 99)
            async for item in items:
                assert isinstance(item, Event)
                received.append(item.json())
                after = item.id
                if len(received) >= first + random.Random(first).randrange(90):
                    break
    async with consuming(place.url, after=after, namespace=place.namespace) as consumer:
        await consumer.has(500)
        assert consumer.gaps == []
        assert received + consumer.numbers == list(range(1, 501))


@async_test
async def test_the_position_moves_over_an_event_when_the_next_is_asked_for(
    place: RedisPlace, connection: psycopg.Connection
) -> None:
    async with aclosing(follow(place.url, namespace=place.namespace)) as items:
        assert items.position is None
        first = await anext(items)
        assert isinstance(first, Gap)
        assert items.position is None, "the caller may not have loaded its state"
        notify(connection, 1, 2)
        one = await anext(items)
        before = str(items.position)
        assert EventId.parse(before) >= (first.position or EventId(0, 0))
        two = await anext(items)
        assert isinstance(one, Event)
        assert items.position == one.id
    async with aclosing(follow(place.url, after=before, namespace=place.namespace)) as items:
        assert [await anext(items), await anext(items)] == [one, two]


@async_test
async def test_the_position_moves_over_the_events_of_other_channels(
    place: RedisPlace, connection: psycopg.Connection
) -> None:
    async with consuming(place.url, channels=["scoreboard_change"], namespace=place.namespace) as consumer:
        notify(connection, 1, 5000)
        with closing(place.client()) as client:
            [last] = await wait_until_async(lambda: ids_of(client, place, 5000))
            await wait_until_async(lambda: EventId.parse(str(consumer.follower.position)) >= last)
        assert consumer.numbers == []
        position = consumer.follower.position
    notify(connection, 5001, 5001, "scoreboard_change")
    async with consuming(place.url, after=position, namespace=place.namespace) as consumer:
        await consumer.has(5001)
        assert consumer.gaps == []


def ids_of(client: redis.Redis, place: RedisPlace, number: int) -> list[EventId]:
    """The id of an event, once it is among the last of the stream."""
    entries: Any = client.xrevrange(RedisNames(place.namespace).log, count=10)
    found = (key.decode() for key, fields in entries if b'"payload":%d,' % number in fields[b"event"])
    return [EventId.parse(text) for text in found]


@async_test
async def test_from_before_the_first_event_everything_comes_that_the_stream_holds(
    place: RedisPlace, connection: psycopg.Connection
) -> None:
    notify(connection, 1, 3000)
    async with consuming(place.url, after="0-0", namespace=place.namespace) as consumer:
        await consumer.has(3000)
        assert consumer.gaps == [GapReason.EPOCH]
        assert consumer.numbers == list(range(1, 3001))


@async_test
async def test_a_position_that_the_stream_has_lost_is_a_gap(place: RedisPlace, connection: psycopg.Connection) -> None:
    notify(connection, 1, 1)
    async with consuming(place.url, after="0-0", namespace=place.namespace) as consumer:
        await consumer.has(1)
        after = consumer.follower.position
    notify(connection, 2, 100)
    with closing(place.client()) as client:
        log = RedisNames(place.namespace).log
        [last] = await wait_until_async(lambda: ids_of(client, place, 100))
        client.xtrim(log, minid=str(last), approximate=False)
    async with consuming(place.url, after=after, namespace=place.namespace) as consumer:
        await consumer.has(100)
        assert consumer.gaps == [GapReason.EVENTS_MISSING]
        assert isinstance(consumer.items[0], Gap)
        assert consumer.numbers == [100]


@async_test
async def test_nothing_is_lost_while_redis_restarts_with_its_data(
    servers: Servers,
    own: psycopg.Connection,
    own_settings: dict[str, str],
    start_listener: StartListener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    start_listener(own_settings).wait_until_aligned()
    async with consuming(servers.embedded.redis_url) as consumer:
        notify(own, 1, 100)
        await consumer.has(100)
        await asyncio.to_thread(servers.stop_redis)
        notify(own, 101, 200)
        await wait_until_async(lambda: "is away" in caplog.text)
        await asyncio.to_thread(servers.start_redis)
        notify(own, 201, 300)
        await consumer.has(300)
        assert consumer.numbers == list(range(1, 301))
        assert consumer.gaps == [GapReason.SESSION]
    assert 1 <= caplog.text.count("Redis is away") <= 3, caplog.text
    assert caplog.text.count("Redis is back") == 1


@async_test
async def test_nothing_is_lost_or_repeated_when_redis_is_wiped_and_the_listener_restores_it(
    servers: Servers, own: psycopg.Connection, own_settings: dict[str, str], start_listener: StartListener
) -> None:
    start_listener(own_settings).wait_until_aligned()
    async with consuming(servers.embedded.redis_url) as consumer:
        notify(own, 1, 100)
        await consumer.has(100)
        await asyncio.to_thread(servers.restart_redis_without_data)
        notify(own, 101, 200)
        await consumer.has(200)
        assert consumer.numbers == list(range(1, 201))
        assert consumer.gaps == [GapReason.SESSION]


@async_test
async def test_the_end_of_the_only_listener_is_a_gap_and_what_follows_comes(
    settings: dict[str, str], redis_place: RedisPlace, connection: psycopg.Connection, start_listener: StartListener
) -> None:
    listener = start_listener(settings).wait_until_aligned()
    async with consuming(redis_place.url, namespace=redis_place.namespace) as consumer:
        notify(connection, 1, 100)
        await consumer.has(100)
        listener.kill()
        notify(connection, 101, 200)
        await asyncio.to_thread(start_listener(settings).wait_until_aligned)
        notify(connection, 201, 300)
        await consumer.has(300)
        assert consumer.gaps == [GapReason.SESSION, GapReason.EPOCH]
        assert consumer.numbers == [*range(1, 101), *range(201, 301)]
        numbers = [item.json() if isinstance(item, Event) else None for item in consumer.items]
        assert numbers.index(None, 1) == numbers.index(100) + 1, "the gap is where the events are missing"


@async_test
async def test_a_slow_caller_whom_redis_drops_reads_the_rest_from_the_stream(
    servers: Servers,
    own: psycopg.Connection,
    own_settings: dict[str, str],
    start_listener: StartListener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start_listener(own_settings).wait_until_aligned()
    with closing(redis.Redis.from_url(servers.embedded.redis_url)) as client:
        client.config_set("client-output-buffer-limit", "pubsub 100000 0 0")
        async with aclosing(follow(servers.embedded.redis_url)) as items:
            assert isinstance(await anext(items), Gap)
            notify(own, 1, 1)
            assert isinstance(await anext(items), Event)
            own.execute("SELECT pg_notify('match_change', (n || repeat(' ', 4000))) FROM generate_series(2, 5000) n")
            await wait_until_async(lambda: client.pubsub_numsub("pg_notify:events")[0][1] == 0, what="dropped")
            received = [item.json() async for item in _until(items, 5000)]
    assert received == list(range(2, 5001))


async def _until(items: Follower, last: int) -> AsyncIterator[Event]:
    async for item in items:
        assert isinstance(item, Event), item
        yield item
        if item.json() == last:
            return


@async_test
async def test_what_is_published_without_an_id_is_not_yielded(
    place: RedisPlace, connection: psycopg.Connection
) -> None:
    service = RedisNotifierService(place.url, RedisNames(place.namespace).events)
    await service.connect()
    async with consuming(place.url, namespace=place.namespace) as consumer:
        assert await service.publish("match_change", 1) == 1
        notify(connection, 2, 2)
        await consumer.has(2)
        assert consumer.numbers == [2]
    await service.disconnect()


@async_test
async def test_a_redis_that_is_away_at_the_start_is_waited_for(
    servers: Servers, own: psycopg.Connection, own_settings: dict[str, str], start_listener: StartListener
) -> None:
    start_listener(own_settings).wait_until_aligned()
    await asyncio.to_thread(servers.stop_redis)
    consumer = Consumer(follow(servers.embedded.redis_url))
    async with running(consumer.run()):
        await asyncio.to_thread(servers.start_redis)
        await wait_until_async(lambda: consumer.items)
        notify(own, 1, 1)
        await consumer.has(1)


@async_test
async def test_the_rights_that_the_operations_page_names_are_enough(
    place: RedisPlace, connection: psycopg.Connection
) -> None:
    [rights] = re.findall(r"needs `(%R~\S+log [^`]+)`", flat(OPERATIONS))
    user = f"{place.namespace}-follower"
    with closing(place.client()) as client:
        await asyncio.to_thread(
            client.execute_command,
            *("ACL", "SETUSER", user, "on", ">follower-password", "resetkeys", "resetchannels", "-@all"),
            *rights.replace("pg_notify", place.namespace).split(),
        )
        try:
            url = f"redis://{user}:follower-password@{place.url.rpartition('@')[2].removeprefix('redis://')}"
            async with consuming(url, namespace=place.namespace) as consumer:
                notify(connection, 1, 10)
                await consumer.has(10)
        finally:
            client.acl_deluser(user)


@pytest.mark.parametrize("end", ["aclose", "break", "cancel"])
@async_test
async def test_an_ended_follower_leaves_no_task_and_no_connection(
    place: RedisPlace, connection: psycopg.Connection, end: str
) -> None:
    channel = RedisNames(place.namespace).events

    with closing(place.client()) as client:
        async with aclosing(follow(place.url, namespace=place.namespace)) as items:
            if end == "cancel":
                consumer = Consumer(items)
                async with running(consumer.run()):
                    await wait_until_async(lambda: client.pubsub_numsub(channel)[0][1] == 1)
            else:
                assert isinstance(await anext(items), Gap)
        if end == "break":
            async for _ in follow(place.url, namespace=place.namespace):
                break
        await wait_until_async(lambda: client.pubsub_numsub(channel)[0][1] == 0)
        await wait_until_async(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        with pytest.raises(StopAsyncIteration):
            await anext(items)


@async_test
async def test_a_stream_that_nobody_has_written_to_is_said_once(
    redis_place: RedisPlace, caplog: pytest.LogCaptureFixture
) -> None:
    async with consuming(redis_place.url, namespace=redis_place.namespace):
        assert f"the stream {RedisNames(redis_place.namespace).log} is empty" in caplog.text


@pytest.mark.parametrize(
    ("url", "options", "error", "text"),
    [
        ("http://localhost", {}, RedisUrlError, "the URL of Redis can't be used: it begins with none of redis://"),
        ("redis://:secret@host:port", {}, RedisUrlError, "the URL of Redis can't be used: its port is no number"),
        ("redis://localhost", {"after": "yesterday"}, ValueError, "'yesterday' is not an event id"),
        ("redis://localhost", {"after": f"{2**63}-1"}, ValueError, f"'{2**63}-1' is not an event id"),
        ("redis://localhost", {"channels": []}, ValueError, "channels is empty"),
        ("redis://localhost", {"channels": "match_change"}, TypeError, "channels is a text"),
    ],
)
def test_what_can_not_be_right_is_refused_at_once(
    url: str, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match="^" + text.replace("(", r"\(")) as caught:
        follow(url, **options)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
