"""The feed: workers hear the listener of their pod before Redis, and without Redis."""

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from notifymux import RedisNotifierService
from notifymux.event import EventId
from tests.conftest import StartApp, StartListener
from tests.support.programs import App, Client, Listener
from tests.support.servers import Servers
from tests.support.waiting import wait_until

NOTIFY = """
    SELECT pg_notify('match_change', json_build_object('match_id', 1, 'n', n)::text)
    FROM generate_series(%s::int, %s::int) n
"""


def workers(app: App) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = app.get("/api/status")[1]["workers"]
    return rows


def wait_until_fed(app: App, count: int = 1) -> None:
    wait_until(
        lambda: len(rows := workers(app)) >= count and all(row["fed"] for row in rows), what="all workers are fed"
    )


def is_served_by_the_feed(app: App) -> bool:
    status, body = app.get("/readyz")
    is_degraded = (status, body["state"], body["ready"]) == (200, "degraded", True)
    return is_degraded and "events come by this pod's listener" in " ".join(body["reasons"])


def numbers(client: Client) -> list[int]:
    return [update["data"]["n"] for update in client.updates]


@pytest.fixture
def own(servers: Servers, tmp_path: Path) -> Iterator[tuple[App, psycopg.Connection]]:
    """An application that is fed, on servers that the test may stop."""
    settings = servers.settings | {"CANARY_INTERVAL": "0.5"}
    with ExitStack() as stack:
        stack.enter_context(Listener(tmp_path, settings)).wait_until_aligned()
        app = stack.enter_context(App(tmp_path, settings, 2)).wait_until_ready()
        connection = stack.enter_context(closing(psycopg.connect(servers.embedded.database_url, autocommit=True)))
        wait_until_fed(app, 2)
        yield app, connection


def test_without_redis_events_arrive_newcomers_are_served_and_nobody_hears_of_a_gap(
    own: tuple[App, psycopg.Connection], servers: Servers
) -> None:
    app, connection = own
    clients = app.client_of_each_worker(1, 2)
    try:
        for client in clients.values():
            client.wait_for_initial_load()
        servers.stop_redis()
        connection.execute(NOTIFY, [1, 100])
        for client in clients.values():
            client.wait_for_updates(100)
        # Each worker notices it at its own time.
        wait_until(lambda: all(is_served_by_the_feed(app) for _ in range(8)), what=lambda: str(app.get("/readyz")))
        with app.client(1, "newcomer") as newcomer:
            assert newcomer.wait_for_initial_load()["recovered"] is False
            connection.execute(NOTIFY, [101, 200])
            newcomer.wait_for_updates(100)
        servers.start_redis()
        wait_until(lambda: app.get("/readyz")[1]["state"] == "ready", 40)
        connection.execute(NOTIFY, [201, 300])
        for client in clients.values():
            client.wait_for_updates(300)
            assert numbers(client) == list(range(1, 301))
            assert not client.of_type("resync")
        with closing(redis.Redis.from_url(servers.embedded.redis_url)) as stream:
            wait_until(lambda: in_stream(stream) == list(range(1, 301)), what="the stream holds everything")
    finally:
        for client in clients.values():
            client.close()


def in_stream(stream: redis.Redis) -> list[int]:

    entries: Any = stream.xrange("{pg_notify}:log")
    events = [json.loads(fields[b"event"]) for _, fields in entries]
    return [event["payload"]["n"] for event in events if event["channel"] == "match_change"]


def test_a_worker_that_starts_without_redis_begins_with_what_it_is_fed(
    own: tuple[App, psycopg.Connection], servers: Servers
) -> None:
    app, connection = own
    servers.stop_redis()
    before = app.client_of_each_worker(1, 2)
    for client in before.values():
        client.close()
    victim = min(before)

    os.kill(victim, signal.SIGKILL)

    with app.client_of_another_worker(set(before)) as client:
        client.wait_for_initial_load()
        wait_until(lambda: app.get("/readyz")[0] == 200)
        connection.execute(NOTIFY, [1, 10])
        client.wait_for_updates(10)
        assert numbers(client) == list(range(1, 11))


@pytest.fixture
def fed(
    settings: dict[str, str], start_listener: StartListener, start_app: StartApp, tmp_path: Path
) -> Iterator[tuple[Listener, App, Client]]:
    """A listener, the application that it feeds, and a client; another pod has a listener too."""
    listener = start_listener(settings).wait_until_aligned()
    other = tmp_path / "other"
    other.mkdir()
    with Listener(other, settings) as second:
        second.wait_until_aligned()
        app = start_app(settings).wait_until_ready()
        wait_until_fed(app)
        with app.client(1) as client:
            client.wait_for_initial_load()
            yield listener, app, client


def test_a_frozen_listener_is_left_for_redis_where_another_pod_goes_on(
    fed: tuple[Listener, App, Client], connection: psycopg.Connection
) -> None:
    listener, app, client = fed
    listener.freeze()
    connection.execute(NOTIFY, [1, 50])
    client.wait_for_updates(50)
    listener.thaw()
    connection.execute(NOTIFY, [51, 100])
    client.wait_for_updates(100)
    wait_until_fed(app)
    assert numbers(client) == list(range(1, 101))
    assert not client.of_type("resync")


def test_a_killed_listener_is_left_for_redis_and_its_successor_is_followed(
    fed: tuple[Listener, App, Client],
    settings: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
) -> None:
    listener, app, client = fed
    listener.kill()
    connection.execute(NOTIFY, [1, 50])
    client.wait_for_updates(50)
    start_listener(settings).wait_until_aligned()
    wait_until_fed(app)
    connection.execute(NOTIFY, [51, 100])
    client.wait_for_updates(100)
    assert numbers(client) == list(range(1, 101))
    assert not client.of_type("resync")


def test_a_worker_that_was_frozen_is_fed_more_than_the_stream_holds(
    settings: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    settings = settings | {"CLIENT_QUEUE_BYTES": "50000000", "STREAM_MAXLEN": "1000"}
    start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    wait_until_fed(app)
    with app.client(1) as client, closing(redis.Redis.from_url(settings["REDIS_URL"])) as stream:
        client.wait_for_initial_load()
        [worker] = (row["pid"] for row in workers(app))
        os.kill(worker, signal.SIGSTOP)
        connection.execute(NOTIFY, [1, 60_000])
        wait_until(lambda: head_sequence(stream, settings["REDIS_NAMESPACE"]) > 60_000, 40)
        os.kill(worker, signal.SIGCONT)
        client.wait_for_updates(60_000, 40)
        assert numbers(client) == list(range(1, 60_001))
        assert not client.of_type("resync")


def head_sequence(stream: redis.Redis, namespace: str) -> int:
    entries: Any = stream.xrevrange(f"{{{namespace}}}:log", count=1)
    return EventId.parse(entries[0][0].decode()).sequence


@pytest.mark.parametrize("killed", ["listener", "listener-standby"])  # one of them is followed
def test_of_two_listeners_in_the_pod_one_feeds_on_when_the_other_dies_while_redis_is_away(
    servers: Servers, start_listener: StartListener, start_app: StartApp, killed: str
) -> None:
    settings = servers.settings | {"CANARY_INTERVAL": "0.5"}
    listeners = {
        program: start_listener(settings | {"SUPERVISOR_PROCESS_NAME": program}).wait_until_aligned()
        for program in ("listener", "listener-standby")
    }
    app = start_app(settings).wait_until_ready()
    wait_until_fed(app)
    with (
        closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection,
        app.client(1) as client,
    ):
        client.wait_for_initial_load()
        servers.redis_process.kill()
        connection.execute(NOTIFY, [1, 50])
        client.wait_for_updates(50)
        listeners[killed].kill()
        connection.execute(NOTIFY, [51, 100])
        client.wait_for_updates(100)
        servers.start_redis()
        connection.execute(NOTIFY, [101, 150])
        client.wait_for_updates(150)
        assert numbers(client) == list(range(1, 151))
        assert not client.of_type("resync")


def read_feed(path: Path, after: bytes) -> Iterator[bytes]:
    with socket.socket(socket.AF_UNIX) as feed:
        feed.settimeout(20)
        feed.connect(str(path))
        feed.sendall(b'{"after":%b}\n' % after)
        with feed.makefile("rb") as lines:
            for line in lines:
                yield line.rstrip(b"\n")


def test_the_feed_brings_the_texts_of_the_stream_to_this_user_only(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, tmp_path: Path
) -> None:
    start_listener(settings).wait_until_aligned()
    [path] = (tmp_path / ".run").glob("feed-*.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    connection.execute(NOTIFY, [1, 700])
    with closing(redis.Redis.from_url(settings["REDIS_URL"])) as client:
        key = f"{{{settings['REDIS_NAMESPACE']}}}:log"
        wait_until(lambda: client.xlen(key) > 700)
        entries: Any = client.xrange(key, count=700)
    stream = [fields[b"event"] for _, fields in entries]
    lines = read_feed(path, b"null")
    assert b'"stream"' in next(lines)
    assert next(lines).startswith(b'{"feed"')
    assert [next(lines) for _ in stream] == stream
    lines.close()  # type: ignore[attr-defined]
    after = read_feed(path, b'"%b"' % entries[500][0])
    assert [next(after) for _ in range(3)][2] == stream[500]
    after.close()  # type: ignore[attr-defined]


async def publish(url: str, channel: str, *numbers: int) -> None:
    service = RedisNotifierService(url, channel)
    await service.connect()
    for number in numbers:
        await service.publish("match_change", {"match_id": 1, "n": number})
    await service.disconnect()


@pytest.mark.parametrize("permitted", [True, False], ids=["permitted", "as before"])
def test_what_is_published_directly_reaches_workers_that_are_fed_and_that_are_not(
    servers: Servers, tmp_path: Path, permitted: bool
) -> None:
    """Also where the workers' user was given rights before there was a channel for it."""
    url = servers.embedded.redis_url
    with closing(redis.Redis.from_url(url)) as admin:
        channels = ["&pg_notify:events", *(["&pg_notify:direct"] if permitted else [])]
        admin.execute_command("ACL", "SETUSER", "worker", "on", ">given", "~*", "+@all", "resetchannels", *channels)  # type: ignore[no-untyped-call]
    user = f"redis://worker:given@{url.rpartition('@')[2].removeprefix('redis://')}"
    with ExitStack() as stack:
        stack.enter_context(Listener(tmp_path, servers.settings)).wait_until_aligned()
        app = stack.enter_context(App(tmp_path, servers.settings | {"REDIS_URL": user})).wait_until_ready()
        connection = stack.enter_context(closing(psycopg.connect(servers.embedded.database_url, autocommit=True)))
        wait_until_fed(app)
        client = stack.enter_context(app.client(1))
        client.wait_for_initial_load()
        for number in range(3):
            asyncio.run(publish(url, "pg_notify:events", 2 * number + 1))
            client.wait_for_updates(2 * number + 1)
            connection.execute(NOTIFY, [2 * number + 2, 2 * number + 2])
            client.wait_for_updates(2 * number + 2)
        assert numbers(client) == [1, 2, 3, 4, 5, 6]
        assert ("Redis forbids the channel pg_notify:direct" in app.log) is not permitted
