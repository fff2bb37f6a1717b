"""Subscriptions that follow an address, and miss and repeat nothing while they do."""

import asyncio
import random

import pytest

from notifymux.redis_client import RedisAddress
from notifymux.redis_errors import WrongServerError
from notifymux.redis_notifier import RedisNotifierService
from notifymux.subscription import Signal, Subscription
from tests.support.loops import async_test, running, wait_until_async
from tests.support.redis_pair import RedisPair
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.long

CHANNEL = "channel"


@async_test
async def test_moving_to_a_new_connection_again_and_again_misses_and_repeats_nothing(server: RedisServer) -> None:
    subscription = Subscription(RedisAddress(server.url), [CHANNEL], silence_seconds=0.0)
    subscription.receive_timeout = 0.001
    received: list[int] = []
    moves = 0

    async def receive() -> None:
        nonlocal moves
        async for message in subscription.messages():
            if isinstance(message, list):
                received.extend(map(int, message))
            moves += message is Signal.SUBSCRIBED

    def publish() -> None:
        rng = random.Random(1)
        for number in range(2000):
            server.client.publish(CHANNEL, str(number))
            for _ in range(rng.choice([0, 0, 1, 5, 30])):
                server.client.ping()  # a delay that is as long as the server's answers are late

    async with running(receive()):
        await wait_until_async(lambda: moves > 2)
        await asyncio.to_thread(publish)
        await wait_until_async(lambda: len(received) >= 2000)
    await subscription.close()
    await subscription.client.aclose()
    assert received == list(range(2000))
    assert moves > 20


@async_test
async def test_a_service_whose_publish_meets_a_replica_goes_to_the_primary(pair: RedisPair) -> None:
    service = RedisNotifierService(pair.url, CHANNEL)
    heard: list[object] = []

    async def callback(_channel: str, payload: object) -> None:
        heard.append(payload)

    await service.connect()
    service.register_callback("match_change", callback)
    await service.subscribe()
    async with running(service.listen_loop()):
        await service.publish("match_change", "first")
        await wait_until_async(lambda: heard)
        await asyncio.to_thread(pair.fail_over)
        with pytest.raises(WrongServerError):
            await _publish_until_refused(service)
        await wait_until_async(lambda: not pair.primary.clients(), what="nobody stays at the old primary")
        await service.publish("match_change", "after")
        await wait_until_async(lambda: "after" in heard)
    await service.disconnect()


async def _publish_until_refused(service: RedisNotifierService) -> None:
    while True:
        await service.publish("match_change", "before")


@async_test
async def test_a_replica_is_refused_by_name(pair: RedisPair) -> None:
    service = RedisNotifierService(pair.replica.url)
    with pytest.raises(WrongServerError, match="read-only replica"):
        await service.connect()
