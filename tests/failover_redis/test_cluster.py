"""A Redis Cluster: the node that has the keys' slot is found, and found again when the slot is another's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartApp, StartListener, Verify
from tests.failover_redis.test_failover import said
from tests.failover_redis.test_sentinel import (
    EVENTS_PER_SECOND,
    LISTENER,
    WORKER,
    as_user,
    goes_on,
    hear_through,
    incidents,
)
from tests.support.numbered import MATCH, Numbered
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinels import part
from tests.support.redis_server import RedisServer
from tests.support.waiting import hold_for, wait_until

pytestmark = pytest.mark.long


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path) as cluster:
        yield cluster


def test_a_primary_of_a_cluster_that_is_killed_costs_delay(
    base: dict[str, str],
    cluster: RedisCluster,
    events: Numbered,
    start_listener: StartListener,
    start_app: StartApp,
    start_remote_app: StartApp,
) -> None:
    """That is with one listener and Redis; tests/chaos has it with two and Valkey."""

    def fail_over() -> None:
        replica = cluster.replica
        cluster.owner.kill()
        wait_until(lambda: replica.is_primary, 30, "the replica is promoted")

    settings = base | {"REDIS_URL": cluster.url}
    listener = start_listener(settings).wait_until_aligned()
    hear_through(fail_over, start_app(settings), start_remote_app(settings), events)
    assert listener.running


def test_what_a_promoted_replica_of_a_cluster_lacks_is_put_back(
    base: dict[str, str],
    cluster: RedisCluster,
    events: Numbered,
    start_listener: StartListener,
    start_remote_app: StartApp,
) -> None:
    """The programs have the rights that the documentation names, and no others."""
    for node in cluster.nodes:
        node.grant("+cluster|slots")
    listener = start_listener(base | {"REDIS_URL": as_user(LISTENER, cluster.url)}).wait_until_aligned()
    app = start_remote_app(base | {"REDIS_URL": as_user(WORKER, cluster.url)}).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        with events.committing(EVENTS_PER_SECOND):
            client.wait_for_updates(50)
            owner, replica = cluster.owner, cluster.replica
            part(owner, replica)
            client.wait_for_updates(events.sent + 100)
            owner.kill()
            assert replica.process
            replica.process.thaw()
            wait_until(lambda: replica.is_primary, 30, "the replica is promoted")
            goes_on(events, client)
        events.heard_by(client)
    wait_until(lambda: "put-back" in incidents(replica), what="the listener says so")
    assert "-password" not in listener.log + app.log


def stayed(node: RedisServer) -> list[str]:
    """What they did last who are connected to a node; neither a Cluster's own connections nor who asks for the slot."""
    return [client["cmd"] for client in node.clients() if client["cmd"] not in {"migrate", "cluster|slots"}]


def test_a_slot_that_migrates_under_load_is_followed(
    base: dict[str, str],
    cluster: RedisCluster,
    events: Numbered,
    start_listener: StartListener,
    start_app: StartApp,
    start_remote_app: StartApp,
    verify: Verify,
) -> None:
    """Workers go with it, and leave the node that had it; so does a failover that an operator asks for."""
    settings = base | {"REDIS_URL": cluster.url}
    listener = start_listener(settings).wait_until_aligned()
    fed, remote = start_app(settings), start_remote_app(settings)
    with fed.wait_until_ready().client(MATCH) as near, remote.wait_until_ready().client(MATCH) as far:
        for client in (near, far):
            client.wait_for_initial_load()
        with events.committing(EVENTS_PER_SECOND):
            for target in cluster.others:
                far.wait_for_updates(events.sent)
                cluster.migrate(target)
                assert cluster.owner is target
                goes_on(events, far)
            replica = cluster.replica
            replica.call("CLUSTER", "FAILOVER")
            wait_until(lambda: cluster.owner is replica, what="the replica has the slot")
            goes_on(events, far)
        for client in (near, far):
            events.heard_by(client)
        others = [node for node in cluster.nodes if node is not replica]
        wait_until(lambda: not any(map(stayed, others)), 15, lambda: f"nobody stays: {[*map(stayed, others)]}")
    assert len(said(listener, "Redis is away")) == len(said(listener, "Redis is back")), listener.log
    checked = verify(settings)
    assert checked.code == 0, checked.log
    assert checked.text("Redis").endswith(f"the primary is 127.0.0.1:{replica.port}")
    assert checked.text("Redis role") == "primary, of a Cluster"


def test_while_a_slots_keys_are_on_their_way_events_wait(
    base: dict[str, str],
    cluster: RedisCluster,
    events: Numbered,
    start_listener: StartListener,
    start_remote_app: StartApp,
) -> None:
    """The node that had them answers ASK, and the one that will have the slot takes nothing unasked."""
    settings = base | {"REDIS_URL": cluster.url}
    listener = start_listener(settings).wait_until_aligned()
    app = start_remote_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        source, target = cluster.owner, cluster.others[0]
        cluster.open(target)
        cluster.move_keys(source, target)
        events.commit(10)
        listener.wait_for_log("this node of a Redis Cluster does not have the slot of our keys")
        hold_for(0.5, lambda: len(client.updates) == 10, "no event is written anywhere")
        cluster.assign(target, source)
        events.heard_by(client)


def test_whoever_subscribes_to_the_documented_channel_on_any_node_hears_every_event(
    base: dict[str, str], cluster: RedisCluster, events: Numbered, start_listener: StartListener
) -> None:
    start_listener(base | {"REDIS_URL": cluster.url}).wait_until_aligned()
    heard: dict[int, list[int]] = {}
    clients: dict[int, Any] = {node.port: node.client for node in cluster.nodes}
    subscriptions = {port: client.pubsub(ignore_subscribe_messages=True) for port, client in clients.items()}
    for subscription in subscriptions.values():
        subscription.subscribe("pg_notify:events")
        subscription.get_message(timeout=5)
    events.commit(20)

    def hear() -> bool:
        for port, subscription in subscriptions.items():
            while message := subscription.get_message():
                event = json.loads(message["data"])
                if event["channel"] == "match_change":
                    heard.setdefault(port, []).append(event["payload"]["data"])
        return len(heard) == len(cluster.nodes) and all(len(numbers) >= 20 for numbers in heard.values())

    wait_until(hear, what=lambda: f"every node's subscriber hears all: {heard}")
    for subscription in subscriptions.values():
        subscription.close()
    assert list(heard.values()) == [list(range(1, 21))] * len(cluster.nodes)
