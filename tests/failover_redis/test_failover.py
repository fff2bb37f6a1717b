"""A Redis that fails over without cutting a connection: the server answers, and is not the right one any more."""

from collections.abc import Callable

import pytest

from tests.conftest import StartApp, StartListener
from tests.support.numbered import MATCH, Numbered
from tests.support.programs import Listener
from tests.support.redis_pair import Address, RedisPair
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

STANDBY = {"SUPERVISOR_PROCESS_NAME": "listener-standby"}  # as supervisord names it, where LISTENER_STANDBY is true


def by_replicaof(pair: RedisPair) -> None:
    pair.promote()
    pair.demote()


FAIL_OVERS = pytest.mark.parametrize("fail_over", [by_replicaof, RedisPair.fail_over], ids=["REPLICAOF", "FAILOVER"])


def said(listener: Listener, text: str) -> list[str]:
    """What it said, without the time."""
    return [line.split(maxsplit=1)[1] for line in listener.lines if text in line]


def is_left(server: RedisServer) -> bool:
    """Whether nobody is connected to it any more."""
    return not server.clients()


@FAIL_OVERS
@pytest.mark.parametrize("listeners", [1, 2], ids=["one listener", "with a standby"])
def test_an_uncut_fail_over_loses_nothing_and_announces_nothing(
    base: dict[str, str],
    pair: RedisPair,
    events: Numbered,
    start_listener: StartListener,
    start_app: StartApp,
    fail_over: Callable[[RedisPair], None],
    listeners: int,
) -> None:
    settings = base | {"REDIS_URL": pair.url}
    running = [start_listener(settings | more).wait_until_aligned() for more in ({}, STANDBY)[:listeners]]
    app = start_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        fail_over(pair)
        events.commit(50)
        events.heard_by(client)
        wait_until(lambda: is_left(pair.primary), what="nobody stays at the old primary")
    app.wait_until_ready()
    assert all(listener.running for listener in running)
    for listener in running:
        if away := said(listener, "Redis is away"):
            listener.wait_for_log("Redis is back", within=5)
        assert len(away) == len(said(listener, "Redis is back")) <= 1, listener.log


@pytest.mark.parametrize(
    "left_behind",
    [RedisPair.abandon, lambda pair: None],
    ids=["a replica of nobody", "still a primary"],
)
def test_workers_go_where_the_listener_went_from_a_server_that_goes_on_answering(
    base: dict[str, str],
    pair: RedisPair,
    events: Numbered,
    start_listener: StartListener,
    start_app: StartApp,
    left_behind: Callable[[RedisPair], None],
) -> None:
    settings = base | {"REDIS_URL": pair.url}
    listener = start_listener(settings).wait_until_aligned()
    app = start_app(settings, workers=2).wait_until_ready()
    clients = app.client_of_each_worker(MATCH, 2).values()
    for client in clients:
        client.wait_for_initial_load()
    listener.stop()
    pair.promote()
    left_behind(pair)
    start_listener(settings).wait_until_aligned()
    events.commit(30)
    for client in clients:
        client.wait_for_updates(30)
        client.close()
    app.wait_until_ready()
    wait_until(lambda: is_left(pair.primary), what="nobody stays at the old primary")


def test_connections_that_are_cut_again_and_again_cost_delay(
    base: dict[str, str],
    server: RedisServer,
    events: Numbered,
    start_listener: StartListener,
    start_remote_app: StartApp,
) -> None:
    """As a provider's proxy does it every few minutes."""
    settings = base | {"REDIS_URL": server.url}
    listener = start_listener(settings).wait_until_aligned()
    app = start_remote_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        with events.committing(100):
            for _ in range(5):
                for kind in ("normal", "pubsub"):
                    server.call("CLIENT", "KILL", "TYPE", kind)
                client.wait_for_updates(events.sent + 50)
        events.heard_by(client)
    assert listener.running


def test_a_master_whose_replica_took_over_and_whose_link_is_down_is_left(
    base: dict[str, str], pair: RedisPair, events: Numbered, start_listener: StartListener, start_app: StartApp
) -> None:
    """It answers MASTERDOWN, to reads as well."""
    pair.primary.set(replica_serve_stale_data="no")
    settings = base | {"REDIS_URL": pair.url}
    start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        pair.promote()
        pair.abandon()
        assert pair.primary.refuses("MasterDownError", "GET", "x")
        events.commit(20)
        events.heard_by(client)
        wait_until(lambda: is_left(pair.primary))


def test_redis_is_not_back_before_the_address_leads_to_a_server_that_takes_writes(
    base: dict[str, str], pair: RedisPair, events: Numbered, start_listener: StartListener
) -> None:
    """Another pod's listener appends at the new primary, and the old one replicates that: nothing is left to append."""
    late = start_listener(base | {"REDIS_URL": pair.url, "POD_NAME": "late"}).wait_until_aligned()
    with Address(pair.primary.port) as address:
        other = base | {"REDIS_URL": f"redis://127.0.0.1:{address.port}", "POD_NAME": "other"}
        start_listener(other).wait_until_aligned()
        pair.replica.client.replicaof("NO", "ONE")
        address.redirect_to(pair.replica.port)
        address.drop()
        pair.demote()
        late.wait_for_log("Redis is away")
        for _ in range(20):
            before = _replicated(pair)
            events.commit(1)
            wait_until(lambda before=before: _replicated(pair) > before)  # type: ignore[misc]
        assert not said(late, "Redis is back"), late.log
        pair.address.redirect_to(pair.replica.port)
        late.wait_for_log("Redis is back")
        assert len(said(late, "Redis is away")) == 1, late.log


def _replicated(pair: RedisPair) -> int:
    """How many events there are in the stream of the old primary."""
    return int(pair.primary.client.xlen("{pg_notify}:log"))


def test_an_address_that_leads_to_another_primary_is_followed_although_the_old_one_takes_everything(
    base: dict[str, str], pair: RedisPair, events: Numbered, start_listener: StartListener, start_app: StartApp
) -> None:
    """Who starts from now on finds the new one; the listener and the workers that are there would never meet them."""
    settings = base | {"REDIS_URL": pair.url}
    listener = start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        pair.promote()
        later = start_app(settings)
        later.wait_until_ready()
        events.commit(10)
        events.heard_by(client)
        assert sum(" begins after " in line for line in listener.lines) == 1
