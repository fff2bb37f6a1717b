"""Servers that are not the one Redis that is wanted: older protocols, Sentinels, cluster nodes, renamed commands."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.conftest import StartApp, StartListener, Verify
from tests.failover_redis.test_failover import said
from tests.support.numbered import MATCH, Numbered
from tests.support.redis_pair import Address
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

Start = Callable[[Path], AbstractContextManager[RedisServer]]


def without(command: str) -> tuple[str, str, str]:
    """The options by which a server lacks a command."""
    return "--rename-command", command, ""


# RESP2.


def test_a_server_that_refuses_hello_is_spoken_to_in_resp2(
    base: dict[str, str],
    tmp_path: Path,
    events: Numbered,
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
) -> None:
    password = ["--user", "someone", "on", ">s3cret", "~*", "&*", "+@all"]
    with RedisServer(tmp_path, *without("HELLO"), *password) as server:
        settings = base | {"REDIS_URL": f"redis://someone:s3cret@127.0.0.1:{server.port}"}
        listener = start_listener(settings)
        wait_until(lambda: "epoch" in listener.log or "s3cret" in listener.log, 10)
        assert "s3cret" not in listener.log, "Redis quotes the arguments of what it lacks, also those of HELLO"
        listener.wait_until_aligned()
        app = start_app(settings).wait_until_ready()
        with app.client(MATCH) as client:
            client.wait_for_initial_load()
            events.commit(20)
            events.heard_by(client)
        wait_until(lambda: app.get("/api/status")[1]["listeners"], what="the worker reads the registry")
        checked = verify(settings)
        assert checked.code == 0, checked.log
        assert not said(listener, "Redis is away")
        assert "s3cret" not in listener.log + app.log + checked.log, "what HELLO was refused with"


# Sentinels and cluster nodes.


@contextmanager
def sentinel(folder: Path) -> Iterator[RedisServer]:
    with RedisServer(folder, mode="sentinel") as server:
        yield server


@contextmanager
def cluster_node(folder: Path) -> Iterator[RedisServer]:
    """One that knows of no slots: every key is CLUSTERDOWN."""
    with RedisServer(folder, mode="cluster") as server:
        yield server


@contextmanager
def wrong_cluster_node(folder: Path) -> Iterator[RedisServer]:
    """One of two, and the stream is the other's: every key is MOVED."""
    with RedisServer(folder, mode="cluster") as server, RedisServer(folder, mode="cluster") as other:
        slot = int(server.client.cluster("KEYSLOT", "{pg_notify}:log"))
        for node, slots in ((server, (*range(slot), *range(slot + 1, 16384))), (other, (slot,))):
            node.client.cluster("ADDSLOTS", *slots)
        server.client.cluster("MEET", "127.0.0.1", other.port, other.bus_port)
        wait_until(lambda: server.client.cluster("INFO")["cluster_state"] == "ok")
        wait_until(lambda: server.refuses("MovedError", "GET", "{pg_notify}:log"))
        yield server


WRONG = pytest.mark.parametrize(
    ("wrong", "word"),
    [(sentinel, "sentinel"), (cluster_node, "cluster"), (wrong_cluster_node, "cluster")],
    ids=["a Sentinel", "a cluster's node without slots", "a cluster's node without the stream's slot"],
)


@WRONG
def test_a_server_of_the_wrong_kind_is_one_clear_line_of_the_listener(
    base: dict[str, str], tmp_path: Path, start_listener: StartListener, wrong: Start, word: str
) -> None:
    with wrong(tmp_path) as server:
        listener = start_listener(base | {"REDIS_URL": server.url})
        wait_until(lambda: word in listener.log.lower() or not listener.running, 10, lambda: listener.log)
        [line] = [line for line in listener.lines if " WARNING " in line or " ERROR " in line]
        assert word in line.lower(), line
        assert "REDIS_URL" in line, "it says what to do"


@WRONG
def test_verify_names_a_server_of_the_wrong_kind_and_does_not_crash(
    base: dict[str, str], tmp_path: Path, verify: Verify, wrong: Start, word: str
) -> None:
    with wrong(tmp_path) as server:
        checked = verify(base | {"REDIS_URL": server.url})
        assert "Redis role" in checked.with_status("failed"), checked.log
        assert word in checked.text("Redis role").lower()
        assert checked.remedy("Redis role")


def test_a_cluster_node_in_place_of_the_primary_is_left_when_the_address_leads_back(
    base: dict[str, str], tmp_path: Path, events: Numbered, start_listener: StartListener, start_app: StartApp
) -> None:
    """It answers CLUSTERDOWN: that is a wrong server, not a sick one."""
    with RedisServer(tmp_path) as right, RedisServer(tmp_path, mode="cluster") as node, Address(right.port) as address:
        right.leave_a_trace()
        settings = base | {"REDIS_URL": f"redis://127.0.0.1:{address.port}"}
        listener = start_listener(settings).wait_until_aligned()
        app = start_app(settings).wait_until_ready()
        with app.client(MATCH) as client:
            client.wait_for_initial_load()
            events.commit(10)
            events.heard_by(client)
            address.redirect_to(node.port)
            address.drop()
            events.commit(10)
            wait_until(lambda: re.search("slot|cluster", listener.log, re.IGNORECASE), 10, lambda: listener.log)
            wait_until(lambda: re.search("slot|cluster", str(app.get("/readyz")), re.IGNORECASE), 10, app.log)
            address.redirect_to(right.port)
            events.commit(10)
            events.heard_by(client)
            wait_until(lambda: not node.clients(), what="nobody stays there")
        app.wait_until_ready()


# What errors say.

QUOTED = ("Appends a batch", "redis.call", '"channel"', '{"id"')  # of the script, and of an event


@pytest.mark.parametrize("command", ["SCRIPT", "EVALSHA", "PUBLISH"])
def test_no_error_carries_a_scripts_or_an_events_text(
    base: dict[str, str], tmp_path: Path, start_listener: StartListener, verify: Verify, command: str
) -> None:
    """Redis quotes the arguments of a command that it lacks."""
    with RedisServer(tmp_path, *without(command)) as server:
        settings = base | {"REDIS_URL": server.url, "REDIS_NAMESPACE": "n"}  # short, so that more of the text is quoted
        server.leave_a_trace("n")
        listener = start_listener(settings)
        listener.wait_for_log(command, within=10)
        for text in QUOTED:
            assert text not in listener.log
        checked = verify(settings)
        for text in QUOTED:
            assert text not in checked.log
