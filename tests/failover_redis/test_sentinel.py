"""Redis behind Sentinels: it is found by its name, and a replica that they promote is found again."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartApp, StartListener
from tests.failover_redis.test_failover import said
from tests.support.numbered import MATCH, Numbered
from tests.support.output import print_line
from tests.support.programs import App, Client
from tests.support.redis_sentinels import RedisSentinels
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

EVENTS_PER_SECOND = 300
GOES_ON_SECONDS = 6.0  # 2 s, on a machine that is three times slower


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[RedisSentinels]:
    with RedisSentinels(tmp_path) as sentinels:
        yield sentinels


LISTENER, WORKER = "notifymux-listener:listener-password@", "notifymux-worker:worker-password@"


def as_user(user: str, url: str) -> str:
    """The URL for one of the users of docs/operations.md."""
    return url.replace("://", f"://{user}")


def goes_on(events: Numbered, client: Client) -> None:
    """Waits until a client hears what is committed from now on."""
    mark, began = events.sent, time.monotonic()
    client.wait_for_updates(mark + 1, GOES_ON_SECONDS)
    print_line(f"events go on after {time.monotonic() - began:.2f} s")


def hear_through(fail_over: Callable[[], None], fed: App, remote: App, events: Numbered) -> None:
    """Under load, clients in the listener's pod and in another hear everything, and go on to after a fail-over."""
    with fed.wait_until_ready().client(MATCH) as near, remote.wait_until_ready().client(MATCH) as far:
        for client in (near, far):
            client.wait_for_initial_load()
        with events.committing(EVENTS_PER_SECOND):
            far.wait_for_updates(100)
            fail_over()
            goes_on(events, far)
        for client in (near, far):
            events.heard_by(client)


def incidents(server: RedisServer) -> list[str]:
    """The kinds of those that a Redis has."""
    ledger: Any = server.client.xrange("{pg_notify}:ledger")
    return [fields["kind"] for _, fields in ledger]


def test_a_primary_that_is_killed_costs_delay(
    base: dict[str, str],
    sentinels: RedisSentinels,
    events: Numbered,
    start_listener: StartListener,
    start_app: StartApp,
    start_remote_app: StartApp,
) -> None:
    """That is with one listener and Redis; tests/chaos has it with two and Valkey."""

    def fail_over() -> None:
        sentinels.primary.kill()
        wait_until(lambda: sentinels.replica.is_primary, 30, "the replica is promoted")

    settings = base | {"REDIS_URL": sentinels.url}
    listener = start_listener(settings).wait_until_aligned()
    hear_through(fail_over, start_app(settings), start_remote_app(settings), events)
    assert listener.running
    wait_until(lambda: len(said(listener, "Redis is back")) == 1, 5, lambda: listener.log)


def test_what_a_promoted_replica_lacks_is_put_back(
    base: dict[str, str],
    sentinels: RedisSentinels,
    events: Numbered,
    start_listener: StartListener,
    start_remote_app: StartApp,
) -> None:
    """The programs have the rights that the documentation names, and no others."""
    for server in (sentinels.primary, sentinels.replica):
        server.grant()
    listener = start_listener(base | {"REDIS_URL": as_user(LISTENER, sentinels.url)}).wait_until_aligned()
    app = start_remote_app(base | {"REDIS_URL": as_user(WORKER, sentinels.url)}).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        with events.committing(EVENTS_PER_SECOND):
            client.wait_for_updates(50)
            sentinels.part()
            client.wait_for_updates(events.sent + 100)
            sentinels.primary.kill()
            assert sentinels.replica.process
            sentinels.replica.process.thaw()
            wait_until(lambda: sentinels.replica.is_primary, 30, "the replica is promoted")
            goes_on(events, client)
        events.heard_by(client)
    wait_until(lambda: "put-back" in incidents(sentinels.replica), what="the listener says so")
    assert f"Redis's primary is 127.0.0.1:{sentinels.replica.port}" in listener.log
    assert "-password" not in listener.log + app.log
