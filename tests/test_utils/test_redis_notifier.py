"""RedisNotifierService with a real Redis."""

import asyncio
import gc
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from notifymux import redis_notifier
from notifymux.redis_notifier import NOTIFY_CHANNEL, RedisNotifierService, init_redis_notifier
from tests.conftest import RedisPlace
from tests.support.loops import async_test, hold_for_async, run_ready_tasks, running, wait_until_async
from tests.support.servers import Servers, redis_url_with_port


class Recorder:
    """A callback that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    async def __call__(self, channel: str, payload: Any) -> None:
        self.calls.append((channel, payload))

    @property
    def payloads(self) -> list[Any]:
        return [payload for _, payload in self.calls]

    def ends_with(self, payload: Any) -> bool:
        return self.payloads[-1:] == [payload]


@pytest.fixture
def client(redis_place: RedisPlace) -> Iterator[redis.Redis]:
    with closing(redis_place.client()) as client:
        yield client


@pytest.fixture
def channel(redis_place: RedisPlace) -> str:
    """A pub/sub channel of the test's own."""
    return f"{redis_place.namespace}:events"


@pytest.fixture
def own(template: Path, tmp_path: Path) -> Iterator[Servers]:
    """A running Redis of the test's own."""
    servers = Servers(tmp_path / "own", template)
    try:
        servers.start_redis()
        yield servers
    finally:
        servers.end()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


@asynccontextmanager
async def listening(url: str, channel: str = NOTIFY_CHANNEL) -> AsyncIterator[RedisNotifierService]:
    """A service that is connected and subscribed, and whose loop runs."""
    service = RedisNotifierService(url, channel)
    await service.connect()
    try:
        await service.subscribe()
        async with running(service.listen_loop()):
            yield service
    finally:
        await service.disconnect()


async def subscribed(client: redis.Redis, channel: str, count: int = 1) -> None:
    """Wait until the channel has so many subscribers."""
    await wait_until_async(lambda: client.pubsub_numsub(channel)[0][1] == count, what=f"{count} subscribers")


def test_the_channel_is_the_documented_one() -> None:
    assert NOTIFY_CHANNEL == "pg_notify:events"


@async_test
async def test_the_usage_in_the_readme_works_as_printed(redis_url: str) -> None:
    my_callback = Recorder()

    async def usage() -> None:
        notifier = await init_redis_notifier(redis_url)
        try:
            await notifier.publish("player_match_change", {"match_id": 123})
            await notifier.subscribe()
            notifier.register_callback("player_match_change", my_callback)
            await notifier.listen_loop()
        finally:
            await notifier.disconnect()

    publisher = await init_redis_notifier(redis_url)
    async with running(usage()):
        with closing(redis.Redis.from_url(redis_url)) as client:
            await subscribed(client, NOTIFY_CHANNEL)
        assert await publisher.publish("player_match_change", {"match_id": 124}) == 1
        await wait_until_async(lambda: my_callback.calls)
    await publisher.disconnect()
    assert my_callback.calls == [("player_match_change", {"match_id": 124})]


@async_test
async def test_a_service_that_is_not_connected_raises(redis_url: str, channel: str) -> None:
    async def refuses(service: RedisNotifierService) -> None:
        for work in (service.publish("c", 1), service.subscribe(), service.listen_loop()):
            with pytest.raises(RuntimeError, match=r"^Redis not connected$"):
                await work
        assert not service.is_connected

    service = RedisNotifierService(redis_url, channel)
    await refuses(service)
    await service.disconnect()
    await refuses(service)
    await service.connect()
    assert service.is_connected
    await service.disconnect()
    await refuses(service)


@async_test
async def test_a_service_can_be_connected_again(redis_url: str, channel: str) -> None:
    service = RedisNotifierService(redis_url, channel)
    recorder = Recorder()
    for round_ in range(3):
        await service.connect()
        service.register_callback("c", recorder)
        await service.subscribe()
        async with running(service.listen_loop()):
            await service.publish("c", round_)
            await wait_until_async(partial(recorder.ends_with, round_))
            await service.disconnect()
            await service.disconnect()
    assert recorder.payloads == [0, 1, 2]


DEEP: Any = None
for _ in range(20_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("event_channel", "payload"),
    [
        (None, 1),
        (5, 1),
        (b"match_change", 1),
        ("match_change", DEEP),
        ("\ud800", 1),
        ("match_change", {"a": {1, object()}}),
    ],
    ids=["None", "a number", "bytes", "a deep payload", "a surrogate", "no JSON"],
)
@async_test
async def test_what_no_subscriber_could_read_is_refused_and_not_published(
    redis_url: str, channel: str, client: redis.Redis, event_channel: Any, payload: Any
) -> None:
    with closing(client.pubsub(ignore_subscribe_messages=True)) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(channel)
        await subscribed(client, channel)
        service = RedisNotifierService(redis_url, channel)
        await service.connect()
        with pytest.raises((TypeError, ValueError)):
            await service.publish(event_channel, payload)
        assert await service.publish("match_change", "a later one") == 1
        message = await wait_until_async(lambda: pubsub.get_message(timeout=0))
        await service.disconnect()
    assert json.loads(message["data"])["payload"] == "a later one"


@async_test
async def test_a_published_event_has_no_id(redis_url: str, channel: str, client: redis.Redis) -> None:
    with closing(client.pubsub(ignore_subscribe_messages=True)) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(channel)
        await subscribed(client, channel)
        service = RedisNotifierService(redis_url, channel)
        await service.connect()
        assert await service.publish("match_change", {"match_id": 1, "data": {"ü": [1.5, None]}}) == 1
        message = await wait_until_async(lambda: pubsub.get_message(timeout=0))
        await service.disconnect()
    event = json.loads(message["data"])
    assert b'"id":null' in message["data"]
    assert set(event) == {"id", "channel", "payload", "at", "copy"}  # workers that are fed hear it on another channel
    assert (event["id"], event["channel"]) == (None, "match_change")
    assert event["payload"] == {"match_id": 1, "data": {"ü": [1.5, None]}}
    assert event["at"] > 1_700_000_000


@async_test
async def test_each_callback_receives_its_channels_events_in_order(redis_url: str, channel: str) -> None:
    async with listening(redis_url, channel) as service:
        one, other, both = Recorder(), Recorder(), Recorder()
        service.register_callback("one", one)
        service.register_callback("one", one)
        service.register_callback("other", other)
        service.register_callback("one", both)
        service.register_callback("other", both)
        for number in range(500):
            await service.publish("one" if number % 2 else "other", number)
            await service.publish("nobody's", number)
        await wait_until_async(lambda: len(both.calls) == 500)
        assert one.calls == [("one", number) for number in range(500) if number % 2]
        assert other.calls == [("other", number) for number in range(500) if not number % 2]
        assert sorted(both.payloads) == list(range(500))


@pytest.mark.parametrize(
    "payload", [None, True, 0, 1.5, "", "text", [], {}, {"a": [1, {"b": None}]}, "\N{SNOWMAN}", "x" * 100_000]
)
@async_test
async def test_any_payload_is_received_as_it_was_published(redis_url: str, channel: str, payload: Any) -> None:
    async with listening(redis_url, channel) as service:
        recorder = Recorder()
        service.register_callback("c", recorder)
        await service.publish("c", payload)
        await wait_until_async(lambda: recorder.calls)
        assert recorder.calls == [("c", payload)]


@async_test
async def test_a_callback_may_modify_its_payload(redis_url: str, channel: str) -> None:
    async def spoils(_: str, payload: Any) -> None:
        payload.clear()

    async with listening(redis_url, channel) as service:
        recorder = Recorder()
        service.register_callback("c", spoils)
        service.register_callback("c", recorder)
        await service.publish("c", {"match_id": 1})
        await wait_until_async(lambda: recorder.calls)
        assert recorder.payloads == [{"match_id": 1}]


@pytest.mark.parametrize(
    "error", [ValueError("mine"), asyncio.CancelledError("mine")], ids=["an error", "a cancelled task"]
)
@async_test
async def test_a_callback_that_raises_is_logged_with_its_channel_and_neither_it_nor_others_miss_an_event(
    redis_url: str, channel: str, error: BaseException, log: pytest.LogCaptureFixture
) -> None:
    async def fails(_: str, payload: Any) -> None:
        raised.append(payload)
        raise error

    async with listening(redis_url, channel) as service:
        raised: list[Any] = []
        same, other = Recorder(), Recorder()
        service.register_callback("broken_change", fails)
        service.register_callback("broken_change", same)
        service.register_callback("other_change", other)
        for number in (1, 2):
            await service.publish("broken_change", number)
            await service.publish("other_change", number)
        await wait_until_async(lambda: len(raised) == len(same.calls) == len(other.calls) == 2)
    records = [record for record in log.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in records] == ["a callback for broken_change failed"] * 2
    assert all(record.exc_info and record.exc_info[1] is error for record in records)


@async_test
async def test_a_slow_callback_delays_no_other(redis_url: str, channel: str) -> None:
    async def is_slow(_: str, payload: Any) -> None:
        started.append(payload)
        await released.wait()

    async with listening(redis_url, channel) as service:
        started: list[Any] = []
        released = asyncio.Event()
        same, other = Recorder(), Recorder()
        service.register_callback("slow", is_slow)
        service.register_callback("slow", same)
        service.register_callback("quick", other)
        for number in range(100):
            await service.publish("slow", number)
            await service.publish("quick", number)
        await wait_until_async(lambda: len(same.calls) == len(other.calls) == 100)
        assert started == [0]
        released.set()
        await wait_until_async(lambda: len(started) == 100)
        assert started == same.payloads == other.payloads == list(range(100))


@async_test
async def test_the_queue_of_a_slow_callback_is_bounded_and_the_loss_is_logged_once(
    redis_url: str, channel: str, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    async def is_slow(_: str, payload: Any) -> None:
        started.append(payload)
        await released.wait()

    monkeypatch.setattr(redis_notifier, "MAX_QUEUED_PAYLOADS", 10)
    async with listening(redis_url, channel) as service:
        started: list[Any] = []
        released = asyncio.Event()
        recorder = Recorder()
        service.register_callback("slow", is_slow)
        service.register_callback("slow", recorder)
        for number in range(50):
            await service.publish("slow", number)
            await wait_until_async(partial(recorder.ends_with, number))
            await wait_until_async(lambda: started)
        released.set()
        await wait_until_async(lambda: started[-1] == 49)
        assert started == [0, *range(40, 50)]
    assert [m for m in log.messages if "slow" in m] == [
        "a callback for slow is too slow: the oldest events are dropped"
    ]


@async_test
async def test_an_unregistered_callback_is_not_called_again(redis_url: str, channel: str) -> None:
    async with listening(redis_url, channel) as service:
        one, other = Recorder(), Recorder()
        service.register_callback("c", one)
        service.register_callback("c", other)
        await service.publish("c", 1)
        await wait_until_async(lambda: one.calls and other.calls)
        service.unregister_callback("c", one)
        service.unregister_callback("c", one)
        service.unregister_callback("c", Recorder())
        await service.publish("c", 2)
        await wait_until_async(lambda: len(other.calls) == 2)
        await run_ready_tasks()
        assert one.payloads == [1]
        service.register_callback("c", one)
        await service.publish("c", 3)
        await wait_until_async(lambda: one.payloads == [1, 3])


@async_test
async def test_a_callback_may_unregister_itself_and_runs_to_its_end(redis_url: str, channel: str) -> None:
    async def unregisters_itself(name: str, payload: Any) -> None:
        service.unregister_callback(name, unregisters_itself)
        await asyncio.sleep(0)
        finished.append(payload)

    async with listening(redis_url, channel) as service:
        finished: list[Any] = []
        other = Recorder()
        service.register_callback("c", unregisters_itself)
        service.register_callback("c", other)
        for number in range(5):
            await service.publish("c", number)
        await wait_until_async(lambda: len(other.calls) == 5)
        await run_ready_tasks()
        assert finished == [0]


@async_test
async def test_a_callback_may_disconnect_the_service(redis_url: str, channel: str) -> None:
    async def ends(_: str, __: Any) -> None:
        await service.disconnect()
        ended.set()

    service = RedisNotifierService(redis_url, channel)
    await service.connect()
    ended = asyncio.Event()
    service.register_callback("c", ends)
    await service.subscribe()
    async with running(service.listen_loop()) as loop:
        await service.publish("c", 1)
        await asyncio.wait_for(ended.wait(), 20)
        await asyncio.wait_for(loop, 20)
    await wait_until_async(lambda: asyncio.all_tasks() == {asyncio.current_task()})


MALFORMED = [
    b"",
    b"not JSON",
    b'{"half":',
    b"[]",
    b'{"payload": 1}',
    b'{"channel": 7, "payload": 1}',
    b'{"channel": "c", "id": 7, "payload": 1}',
    b'{"channel": "c", "payload": "\xff"}',
    b"\xff\xfe",
    b'{"channel": "c", "payload": ' + b"[" * 985 + b"]" * 985 + b"}",
    b'{"channel": "c", "payload": ' + b"[" * 9000 + b"]" * 9000 + b"}",
    b'{"channel": "c", "payload": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: repr(text[:40]))
@async_test
async def test_a_malformed_message_is_logged_and_skipped(
    redis_url: str, channel: str, client: redis.Redis, text: bytes, log: pytest.LogCaptureFixture
) -> None:
    async with listening(redis_url, channel) as service:
        recorder = Recorder()
        service.register_callback("c", recorder)
        await service.publish("c", "before")
        assert client.publish(channel, text) == 1
        await service.publish("c", "after")
        await wait_until_async(lambda: "after" in recorder.payloads)
        assert recorder.payloads[0] == "before"
        [*logged] = (record for record in log.records if "is not an event" in record.getMessage())
        if len(recorder.payloads) == 2:
            assert [record.levelno for record in logged] == [logging.WARNING]
            assert f"what was published on {channel} is not an event: " in logged[0].getMessage()
        else:  # this version of Python parses what others refuse
            assert text.count(b"[") == 985
            assert not logged
        assert service.is_connected


@async_test
async def test_what_earlier_publishers_send_is_received(redis_url: str, channel: str, client: redis.Redis) -> None:
    async with listening(redis_url, channel) as service:
        recorder = Recorder()
        service.register_callback("match_change", recorder)
        client.publish(channel, '{"channel": "match_change", "payload": {"match_id": 1}}')
        client.publish(channel, '{"channel": "match_change", "payload": "text", "id": "5-6", "more": true}')
        await wait_until_async(lambda: len(recorder.calls) == 2)
        assert recorder.payloads == [{"match_id": 1}, "text"]


@async_test
async def test_a_dropped_subscription_is_replaced_and_is_connected_shows_it(
    redis_url: str, channel: str, client: redis.Redis, log: pytest.LogCaptureFixture
) -> None:
    async with listening(redis_url, channel) as service:
        recorder = Recorder()
        service.register_callback("c", recorder)
        for round_ in range(3):
            await wait_until_async(lambda: service.is_connected)
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
            assert client.pubsub_numsub(channel)[0][1] == 0
            await wait_until_async(lambda: not service.is_connected)
            assert service.outage
            await wait_until_async(lambda: service.is_connected)
            assert client.pubsub_numsub(channel)[0][1] == 1
            await wait_until_async(lambda: service.outage is None)
            await service.publish("c", round_)
            await wait_until_async(partial(recorder.ends_with, round_))
    assert recorder.payloads == [0, 1, 2]
    assert sum("Redis is away" in message for message in log.messages) == 3
    assert sum("Redis is back" in message for message in log.messages) == 3


@async_test
async def test_the_service_reconnects_after_a_restart_of_redis(own: Servers, log: pytest.LogCaptureFixture) -> None:
    async with listening(own.embedded.redis_url) as service:
        recorder = Recorder()
        service.register_callback("c", recorder)
        await service.publish("c", "before")
        await wait_until_async(lambda: recorder.payloads == ["before"])
        await asyncio.to_thread(own.stop_redis)
        await wait_until_async(lambda: not service.is_connected)
        with pytest.raises(redis.RedisError):
            await service.publish("c", "meanwhile")
        await hold_for_async(0.5, lambda: not service.is_connected)
        await asyncio.to_thread(own.start_redis)
        await wait_until_async(lambda: service.is_connected)
        await service.publish("c", "after")
        await wait_until_async(lambda: recorder.payloads == ["before", "after"])
    assert sum("Redis is back" in message for message in log.messages) == 1
    assert 1 <= sum("Redis is away" in message for message in log.messages) <= 3


@pytest.mark.long
@async_test
async def test_a_redis_that_does_not_answer_is_noticed_and_so_is_its_recovery(own: Servers) -> None:
    assert own.redis
    async with listening(own.embedded.redis_url) as service:
        recorder = Recorder()
        service.register_callback("c", recorder)
        await wait_until_async(lambda: service.is_connected)
        own.redis.freeze()
        await wait_until_async(lambda: not service.is_connected)
        own.redis.thaw()
        await wait_until_async(lambda: service.is_connected)
        await service.publish("c", "after")
        await wait_until_async(lambda: recorder.payloads == ["after"])


@async_test
async def test_a_service_that_only_publishes_knows_whether_redis_answers(own: Servers) -> None:
    service = await init_redis_notifier(own.embedded.redis_url)
    await wait_until_async(lambda: service.is_connected)
    await asyncio.to_thread(own.stop_redis)
    with pytest.raises(redis.RedisError):
        await service.publish("c", 1)
    assert not service.is_connected
    await asyncio.to_thread(own.start_redis)
    assert await service.publish("c", 1) == 0
    assert service.is_connected
    await service.disconnect()


@async_test
async def test_the_loop_subscribes_after_a_subscription_that_failed(own: Servers) -> None:
    service = await init_redis_notifier(own.embedded.redis_url)
    recorder = Recorder()
    service.register_callback("c", recorder)
    await asyncio.to_thread(own.stop_redis)
    for command in (service.publish("c", 0), service.subscribe()):
        with pytest.raises(redis.RedisError):
            await command
    assert not service.is_connected
    async with running(service.listen_loop()):
        await wait_until_async(lambda: service.outage)
        await asyncio.to_thread(own.start_redis)
        await wait_until_async(lambda: service.is_connected)
        await service.publish("c", 1)
        await wait_until_async(lambda: recorder.calls)
    await service.disconnect()


@pytest.mark.parametrize("end", ["unsubscribe", "disconnect"])
@async_test
async def test_the_loop_ends_with_the_subscription(redis_url: str, channel: str, end: str) -> None:
    service = RedisNotifierService(redis_url, channel)
    await service.connect()
    await service.subscribe()
    async with running(service.listen_loop()) as loop:
        await run_ready_tasks()
        await getattr(service, end)()
        await asyncio.wait_for(loop, 20)
    await service.disconnect()


@pytest.mark.parametrize("end", ["unsubscribe", "disconnect"])
@async_test
async def test_the_loop_ends_at_once_also_while_redis_is_away(own: Servers, end: str) -> None:
    service = await init_redis_notifier(own.embedded.redis_url)
    await service.subscribe()
    async with running(service.listen_loop()) as loop:
        await asyncio.to_thread(own.stop_redis)
        await wait_until_async(lambda: service.outage)
        await getattr(service, end)()
        await asyncio.wait_for(loop, 2)
    await service.disconnect()


@async_test
async def test_the_loop_can_run_again_after_an_unsubscription(redis_url: str, channel: str) -> None:
    service = RedisNotifierService(redis_url, channel)
    await service.connect()
    recorder = Recorder()
    service.register_callback("c", recorder)
    for round_ in range(3):
        async with running(service.listen_loop()) as loop:
            with closing(redis.Redis.from_url(redis_url)) as client:
                await subscribed(client, channel)
            await service.publish("c", round_)
            await wait_until_async(partial(recorder.ends_with, round_))
            await service.unsubscribe()
            await asyncio.wait_for(loop, 20)
    await service.disconnect()
    assert recorder.payloads == [0, 1, 2]


@async_test
async def test_disconnecting_leaves_no_task_and_no_connection(
    redis_url: str, channel: str, client: redis.Redis
) -> None:
    before = client.info("clients")["connected_clients"]
    async with listening(redis_url, channel) as service:
        service.register_callback("c", Recorder())
        await service.publish("c", 1)
        assert client.info("clients")["connected_clients"] > before
    await wait_until_async(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    await wait_until_async(lambda: client.info("clients")["connected_clients"] == before)


@async_test
async def test_unsubscribing_ends_the_read_before_the_connection_so_that_redis_py_does_not_open_it_again(
    own: Servers,
) -> None:
    with closing(redis.Redis.from_url(own.embedded.redis_url)) as client:
        before = client.info("clients")["connected_clients"]
        service = await init_redis_notifier(own.embedded.redis_url)
        async with running(service.listen_loop()):
            await subscribed(client, NOTIFY_CHANNEL)
            await service.unsubscribe()
        await wait_until_async(lambda: client.info("clients")["connected_clients"] == before)
        await service.disconnect()


@async_test
async def test_a_failed_connection_raises_and_leaves_nothing_behind(own: Servers) -> None:
    await asyncio.to_thread(own.stop_redis)
    service = RedisNotifierService(own.embedded.redis_url)
    for _ in range(2):
        with pytest.raises(redis.RedisError):
            await service.connect()
        assert not service.is_connected
        with pytest.raises(RuntimeError, match="Redis not connected"):
            await service.publish("c", 1)
    with pytest.raises(redis.RedisError):
        await init_redis_notifier(own.embedded.redis_url)
    await asyncio.to_thread(own.start_redis)
    await service.connect()
    assert service.is_connected
    await service.disconnect()
    gc.collect()


@async_test
async def test_the_password_is_in_no_log_line_error_or_repr(own: Servers, log: pytest.LogCaptureFixture) -> None:
    url, password = own.embedded.redis_url, own.embedded.password
    texts: list[object] = []
    async with listening(url) as service:
        await service.publish("c", 1)
        await asyncio.to_thread(own.stop_redis)
        texts += [await wait_until_async(lambda: service.outage), service, str(service)]
        with pytest.raises(redis.RedisError) as caught:
            await service.publish("c", 1)
        texts.append(caught.value)
        await asyncio.to_thread(own.start_redis)
        await wait_until_async(lambda: service.is_connected)
    wrong = url.replace(password, "wr0ng-secret")
    for refused in (wrong, redis_url_with_port(wrong, 1)):
        with pytest.raises(redis.RedisError) as caught:
            await init_redis_notifier(refused)
        texts.append(caught.value)
    text = log.text + "".join(f"{thing}{thing!r}" for thing in texts)
    assert re.search("Redis is away.*Redis is back", text, re.DOTALL)
    assert password not in text
    assert "wr0ng-secret" not in text
