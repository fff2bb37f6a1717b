"""What Redis did, and could not say."""

import asyncio
import socket
import time
from contextlib import closing
from typing import Any

import pytest
import redis

from notifymux.redis_notifier import RedisNotifierService
from tests.conftest import StartApp, StartListener
from tests.failover_redis.test_failover import said
from tests.support.canaries import Canaries
from tests.support.loops import async_test, running, wait_until_async
from tests.support.lossy_proxy import LossyProxy
from tests.support.numbered import Numbered
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

LOG = "{pg_notify}:log"


def listener_hash(server: RedisServer) -> dict[str, str]:
    """What the one listener that runs says of itself."""
    for key in server.client.scan_iter(match="{pg_notify}:listener:*"):
        fields: Any = server.client.hgetall(key)
        if fields.get("state") == "running":
            return dict(fields)
    return {}


class LosesAnswers:
    """A listener behind a proxy that loses the answer to the append of one event."""

    def __init__(self, server: RedisServer, settings: dict[str, str], start_listener: StartListener) -> None:
        self.proxy = LossyProxy(server.port)
        self.listener = start_listener(
            settings | {"REDIS_URL": f"redis://127.0.0.1:{self.proxy.port}"}
        ).wait_until_aligned()
        wait_until(lambda: listener_hash(server).get("role") == "primary")

    def lose(self, events: Numbered) -> None:
        """Commits one event, and waits until Redis is back for the listener."""
        lost, back = self.proxy.lost, len(said(self.listener, "Redis is back"))
        self.proxy.lose_answer_to(b"EVALSHA")
        events.commit(1)
        wait_until(lambda: self.proxy.lost > lost)
        wait_until(lambda: len(said(self.listener, "Redis is back")) > back, 10, lambda: self.listener.log)


def test_an_append_whose_answer_was_lost_leaves_the_listener_primary_and_counts_no_failover(
    server: RedisServer, base: dict[str, str], events: Numbered, database: str, start_listener: StartListener
) -> None:
    loses = LosesAnswers(server, base, start_listener)
    with closing(loses.proxy), Canaries(database) as canaries:
        for _ in range(3):
            loses.lose(events)
            canaries.pass_by(2)  # which are appended, by whatever the listener is by then
        fields = listener_hash(server)
        assert (fields["role"], fields["failovers"]) == ("primary", "0")
        ledger: Any = server.client.xrange("{pg_notify}:ledger")
        assert "failover" not in [line["kind"] for _, line in ledger]


def test_the_event_after_an_append_whose_answer_was_lost_is_not_held_back(
    server: RedisServer, base: dict[str, str], events: Numbered, start_listener: StartListener
) -> None:
    """A standby waits 250 ms; who finds in the stream what it appended itself is none."""
    loses = LosesAnswers(server, base | {"CANARY_INTERVAL": "60"}, start_listener)
    delays = []
    with closing(loses.proxy):
        for _ in range(4):
            loses.lose(events)
            began, length = time.monotonic(), int(server.client.xlen(LOG))
            events.commit(1)
            wait_until(lambda length=length: int(server.client.xlen(LOG)) > length)  # type: ignore[misc]
            delays.append(time.monotonic() - began)
    assert min(delays) < 0.2, delays  # the least: this machine may have been busy at any one


def test_the_reason_that_is_shown_is_the_one_that_holds_now(
    base: dict[str, str], server: RedisServer, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(base | {"REDIS_URL": server.url}).wait_until_aligned()
    app = start_app(base | {"REDIS_URL": server.url}).wait_until_ready()

    def shows(text: str) -> None:
        wait_until(lambda: text in str(app.get("/readyz")[1]["reasons"]), 15, lambda: str(app.get("/readyz")))
        wait_until(lambda: text in str(app.get("/api/status")[1]["redis"]["outage"]), 5)

    server.kill()
    shows("refused")
    with socket.create_server(("127.0.0.1", server.port)):  # takes connections, and never answers
        shows("Timeout")
    shows("refused")


@async_test
async def test_callbacks_that_were_registered_before_a_first_connect_that_failed_hear_events(
    server: RedisServer,
) -> None:
    await asyncio.to_thread(server.kill)
    service = RedisNotifierService(server.url)
    heard: list[object] = []

    async def callback(_channel: str, payload: object) -> None:
        heard.append(payload)

    service.register_callback("match_change", callback)
    with pytest.raises(redis.RedisError):
        await service.connect()
    await asyncio.to_thread(server.start)
    await service.connect()
    try:
        await service.subscribe()
        async with running(service.listen_loop()):
            await service.publish("match_change", 1)
            await wait_until_async(lambda: heard == [1], 5, "the callback hears it")
    finally:
        await service.disconnect()
