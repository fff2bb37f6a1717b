"""MatchDataWebSocketManager in both of its modes, against real servers."""

import asyncio
import inspect
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from app.broadcast.messages import Message, MessageBatch
from app.core.config import Settings
from app.websocket_manager import MatchDataWebSocketManager
from notifymux.redis_notifier import RedisNotifierService
from tests.conftest import RedisPlace, StartListener
from tests.support.loops import async_test, hold_for_async, run_ready_tasks, wait_until_async
from tests.support.proxy import Proxy
from tests.support.servers import Servers, redis_url_with_port

MODES = pytest.mark.parametrize("mode", ["redis", "postgres"])
PAYLOAD = {"table": "match", "operation": "UPDATE", "match_id": 1, "data": {"score": 3}}


class LocalClient:
    """A client of a match in this process that receives every message at once."""

    def __init__(self, manager: MatchDataWebSocketManager, match: str = "1", name: str = "c") -> None:
        self.client = manager.hub.join(match, name)
        self.messages: list[dict[str, Any]] = []
        self.client.attach(self._write, self._send)

    def _write(self, batch: MessageBatch) -> bool:
        self.messages += [json.loads(message.text) for message in batch.messages]
        return True

    async def _send(self, messages: Sequence[Message]) -> bool:
        return self._write(MessageBatch(messages))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def data(self) -> list[Any]:
        """The rows of its updates."""
        return [message["data"] for message in self.messages if "operation" in message]

    def ends_with(self, row: Any) -> bool:
        return self.data[-1:] == [row]


async def joined(manager: MatchDataWebSocketManager, match: str = "1", name: str = "c") -> LocalClient:
    """Return a client that has its initial load: what happens next is not in it."""
    client = LocalClient(manager, match, name)
    await wait_until_async(lambda: client.of("initial-load"))
    return client


class Place:
    """The servers of a manager, and what a test can do to them."""

    def __init__(self, mode: str, servers: Servers, namespace: str = "test") -> None:
        self.mode, self.servers, self.namespace = mode, servers, namespace
        self.name = f"notifymux-worker/{namespace}"

    def manager(self, port: int | None = None, **settings: Any) -> MatchDataWebSocketManager:
        """Return a manager for these servers; with `port`, it connects to a proxy instead."""
        chosen = {"redis_namespace": self.namespace, "pod_name": self.namespace, "canary_interval": 0.2}
        database_url, redis_url = self.servers.embedded.database_url, self.servers.embedded.redis_url
        return MatchDataWebSocketManager(
            make_conninfo(database_url, port=port) if port else database_url,
            self.mode == "redis",
            redis_url_with_port(redis_url, port) if port else redis_url,
            settings=Settings(**{**chosen, **settings}),
        )

    def start(self) -> None:
        if self.mode == "redis":
            self.servers.start_redis()
        else:
            self.servers.start_postgres()

    def stop(self) -> None:
        if self.mode == "redis":
            self.servers.stop_redis()
        else:
            self.servers.stop_postgres()

    def notify(self, payload: Any, channel: str = "match_change") -> None:
        """Send an event that both modes deliver live."""
        text = json.dumps(payload)
        if self.mode == "redis":
            event = {"id": None, "channel": channel, "payload": payload}
            with closing(self.redis()) as client:
                client.publish(f"{self.namespace}:events", json.dumps(event))
        else:
            with self.postgres() as connection:
                connection.execute("SELECT pg_notify(%s, %s)", [channel, text])

    def kill(self) -> int:
        """Kill the manager's subscription or session; return how many there were."""
        if self.mode == "redis":
            with closing(self.redis()) as client:
                killed: int = client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
                return killed
        with self.postgres() as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
            return len(connection.execute(query, [self.name]).fetchall())

    def sessions(self) -> int:
        """Return how many connections of managers the server has."""
        if self.mode == "redis":
            with closing(self.redis()) as client:
                return len([c for c in client.client_list() if c["cmd"] not in {"client|list", "hello", "ping"}])
        with self.postgres() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'notifymux%'"
            [(count,)] = connection.execute(query).fetchall()
            return int(count)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.servers.embedded.redis_url)

    def postgres(self) -> closing[psycopg.Connection]:
        return closing(psycopg.connect(self.servers.embedded.database_url, autocommit=True))


@pytest.fixture
def place(mode: str, shared_servers: Servers, redis_place: RedisPlace) -> Place:
    """Servers that other tests use too."""
    return Place(mode, shared_servers, redis_place.namespace)


@pytest.fixture
def own_place(mode: str, template: Path, tmp_path: Path) -> Iterator[Place]:
    """Servers of the test's own, which are not running yet."""
    servers = Servers(tmp_path / "own", template)
    try:
        yield Place(mode, servers)
    finally:
        servers.end()


@asynccontextmanager
async def started(manager: MatchDataWebSocketManager) -> AsyncIterator[MatchDataWebSocketManager]:
    """The manager, started and shut down."""
    await manager.startup()
    try:
        yield manager
    finally:
        await manager.shutdown()


@asynccontextmanager
async def connected(manager: MatchDataWebSocketManager) -> AsyncIterator[MatchDataWebSocketManager]:
    """The manager, connected."""
    async with started(manager):
        await wait_until_async(lambda: manager.is_connected, what="connected")
        yield manager


def test_the_constructor_is_the_documented_one() -> None:
    *positional, settings, queries = inspect.signature(MatchDataWebSocketManager).parameters.values()
    assert [(parameter.name, parameter.default) for parameter in positional] == [
        ("db_url", inspect.Parameter.empty),
        ("use_redis", False),
        ("redis_url", None),
    ]
    assert settings.kind is queries.kind is inspect.Parameter.KEYWORD_ONLY
    assert MatchDataWebSocketManager("host=h").mode == "postgres"
    assert MatchDataWebSocketManager("host=h", True, "redis://h").mode == "redis"
    assert MatchDataWebSocketManager(None, use_redis=True, redis_url="redis://h").mode == "redis"


@pytest.mark.parametrize(
    ("arguments", "snapshot_query", "reason"),
    [
        ((None,), None, "DB_HOST is not set"),
        (("host=h", True), None, "USE_REDIS_NOTIFIER needs REDIS_URL"),
        ((None, True, "redis://h"), "SELECT %(match_id)s", "SNAPSHOT_QUERY needs DB_HOST"),
    ],
)
def test_a_manager_without_its_servers_url_is_refused(arguments: Any, snapshot_query: str | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MatchDataWebSocketManager(*arguments, settings=Settings(snapshot_query=snapshot_query))


@MODES
@async_test
async def test_each_mode_delivers_to_the_clients_of_the_match_and_to_nobody_else(place: Place) -> None:
    async with connected(place.manager()) as manager:
        one, two, other = (
            await joined(manager, "1", "a"),
            await joined(manager, "1", "b"),
            await joined(manager, "2", "a"),
        )
        for score in range(100):
            place.notify({**PAYLOAD, "data": {"score": score}})
        place.notify({**PAYLOAD, "match_id": 2})
        await wait_until_async(lambda: len(one.data) == len(two.data) == 100 and other.data)
        assert one.data == two.data == [{"score": score} for score in range(100)]
        assert other.data == [{"score": 3}]
        assert [message["type"] for message in one.messages[:2]] == ["initial-load", "match-update"]
        assert one.messages[-1] == {
            "type": "match-update",
            "id": None,
            "channel": "match_change",
            "match_id": 1,
            "operation": "UPDATE",
            "data": {"score": 99},
        }


@MODES
@async_test
async def test_the_manager_waits_for_a_server_that_is_not_available_at_the_start(own_place: Place) -> None:
    async with started(own_place.manager()) as manager:
        client = LocalClient(manager)
        await wait_until_async(lambda: client.of("initial-load"))
        await wait_until_async(lambda: not any("not yet" in reason for reason in manager.unready()))
        await hold_for_async(0.5, lambda: not manager.is_connected)
        assert any("is not connected to" in reason for reason in manager.unready())
        await asyncio.to_thread(own_place.start)
        await wait_until_async(lambda: manager.is_connected)
        own_place.notify(PAYLOAD)
        await wait_until_async(lambda: client.data)
        assert client.data == [{"score": 3}]
        # The initial load came before the manager was connected, so events after it may have been missed.
        assert [message["type"] for message in client.messages] == ["initial-load", "resync", "match-update"]


@MODES
@async_test
async def test_after_a_restart_of_its_server_the_manager_receives_events_again(
    own_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await asyncio.to_thread(own_place.start)
    async with connected(own_place.manager()) as manager:
        client = await joined(manager)
        await asyncio.to_thread(own_place.stop)
        await wait_until_async(lambda: not manager.is_connected)
        await hold_for_async(0.5, lambda: not manager.is_connected)
        await asyncio.to_thread(own_place.start)
        await wait_until_async(lambda: manager.is_connected)
        own_place.notify(PAYLOAD)
        await wait_until_async(lambda: client.data)
    assert own_place.servers.embedded.password not in caplog.text
    assert " is back after " in caplog.text


@MODES
@async_test
async def test_is_connected_is_true_only_between_startup_and_shutdown(place: Place) -> None:
    manager = place.manager()
    assert not manager.is_connected
    assert manager.unready()
    async with connected(manager):
        pass
    assert not manager.is_connected
    assert manager.unready()
    await manager.shutdown()


@MODES
@async_test
async def test_a_killed_subscription_or_session_is_noticed_and_replaced(place: Place) -> None:
    async with connected(place.manager()) as manager:
        client = await joined(manager)
        for round_ in range(3):
            assert place.kill() == 1
            await wait_until_async(lambda: not manager.is_connected)
            assert any("is not connected to" in reason for reason in manager.unready())
            await wait_until_async(lambda: manager.is_connected)
            place.notify({**PAYLOAD, "data": round_})
            await wait_until_async(partial(client.ends_with, round_))
        assert client.data == [0, 1, 2]
        resyncs = len(client.of("resync"))
        assert resyncs == (3 if place.mode == "postgres" else 0)  # Redis mode has the stream to go on from


@MODES
@async_test
async def test_a_source_that_a_bug_ended_is_reported_and_the_shutdown_is_complete(
    own_place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: object) -> None:
        raise ZeroDivisionError("a bug")

    await asyncio.to_thread(own_place.start)
    if own_place.mode == "redis":
        await asyncio.to_thread(own_place.servers.start_postgres)
    manager = own_place.manager(snapshot_query="SELECT %(match_id)s::text")
    async with connected(manager):
        client = await joined(manager)
        assert client.messages[0]["data"] == 1
        monkeypatch.setattr(manager.hub, "deliver", fails)
        own_place.notify(PAYLOAD)
        await wait_until_async(lambda: "this worker's source of events has ended: see its log" in manager.unready())
        assert not manager.is_connected
    assert not manager.is_connected
    [record] = (record for record in caplog.records if record.levelno == logging.CRITICAL)
    assert record.exc_info
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    await wait_until_async(lambda: not own_place.sessions(), what="no connection left")
    assert Place("postgres", own_place.servers).sessions() == 0
    await wait_until_async(lambda: asyncio.all_tasks() == {asyncio.current_task()})


@MODES
@async_test
async def test_a_shutdown_leaves_no_connection_and_no_task(own_place: Place) -> None:
    await asyncio.to_thread(own_place.start)
    async with connected(own_place.manager()):
        assert own_place.sessions()
    await wait_until_async(lambda: not own_place.sessions())
    assert asyncio.all_tasks() == {asyncio.current_task()}


@MODES
@async_test
async def test_a_shutdown_while_the_server_is_not_available_takes_no_time(own_place: Place) -> None:
    async with started(own_place.manager()) as manager:
        await wait_until_async(lambda: not any("not yet" in reason for reason in manager.unready()))
        before = time.monotonic()
    assert time.monotonic() - before < 2


@MODES
@async_test
async def test_a_shutdown_while_the_server_does_not_answer_takes_no_time(place: Place) -> None:
    embedded = place.servers.embedded
    with Proxy(embedded.valkey_port if place.mode == "redis" else embedded.postgres_port) as proxy:
        async with connected(place.manager(port=proxy.port)):
            proxy.stall()
            before = time.monotonic()
        assert time.monotonic() - before < 5


@MODES
@async_test
async def test_a_client_that_does_not_keep_up_is_closed_with_3008_and_others_go_on(place: Place) -> None:
    async with connected(place.manager(client_queue_bytes=10_000)) as manager:
        slow, client = manager.hub.join("1", "slow"), await joined(manager)
        for number in range(30):
            await asyncio.to_thread(place.notify, {**PAYLOAD, "data": [number, "x" * 500]})
        await wait_until_async(lambda: len(client.data) == 30)
        assert slow.closing.result() == 3008
        assert not client.client.closing.done()
        assert manager.hub.slow_closes == 1


@MODES
@async_test
async def test_a_client_that_was_replaced_gets_nothing_and_the_one_that_replaced_it_does(place: Place) -> None:
    async with connected(place.manager()) as manager:
        old, stays = await joined(manager, name="a"), await joined(manager, name="b")
        assert len(manager.hub) == 2
        new = await joined(manager, name="a")
        assert old.client.closing.result() == 3510
        manager.hub.leave(old.client)
        assert len(manager.hub) == 2
        place.notify(PAYLOAD)
        await wait_until_async(lambda: new.data and stays.data)
        await run_ready_tasks()
        assert old.data == []
        for each in (new, stays, stays):
            manager.hub.leave(each.client)
        assert len(manager.hub) == 0


@MODES
@async_test
async def test_a_worker_is_ready_when_a_canary_has_arrived(
    mode: str, settings: dict[str, str], redis_place: RedisPlace, database: str, start_listener: StartListener
) -> None:
    chosen = Settings(redis_namespace=redis_place.namespace, canary_interval=0.5)
    manager = MatchDataWebSocketManager(database, mode == "redis", redis_place.url, settings=chosen)
    async with connected(manager):
        if mode == "redis":
            assert manager.unready() == ["no canary has come through PostgreSQL, the listener and Redis yet"]
            listener = start_listener(settings)
            await wait_until_async(lambda: not manager.unready())
            listener.freeze()
            await wait_until_async(manager.unready)
            [reason] = manager.unready()
            assert reason.startswith("no canary has come through PostgreSQL, the listener and Redis for ")
            assert manager.is_connected
            listener.thaw()
        await wait_until_async(lambda: not manager.unready())


# Redis mode.


class Stream:
    """Writes to Redis what a listener writes."""

    def __init__(self, place: RedisPlace) -> None:
        self._client, self._place = place.client(), place

    def event(self, event_id: str, data: Any) -> bytes:
        payload = {**PAYLOAD, "data": data}
        return json.dumps({"id": event_id, "channel": "match_change", "payload": payload, "at": 1.0}).encode()

    def add(self, event_id: str, data: Any, text: bytes | None = None, *, publish: bool = True) -> None:
        text = self.event(event_id, data) if text is None else text
        self._client.xadd(f"{{{self._place.namespace}}}:log", {"event": text}, id=event_id)
        if publish:
            self.publish(text)

    def publish(self, text: bytes) -> None:
        self._client.publish(f"{self._place.namespace}:events", text)

    def kill(self) -> None:
        self._client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]

    def wipe(self) -> None:
        self._client.delete(f"{{{self._place.namespace}}}:log")

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def stream(redis_place: RedisPlace) -> Iterator[Stream]:
    with closing(Stream(redis_place)) as stream:
        stream.add("5-1", "before")
        yield stream


@pytest.fixture
def redis_manager(redis_place: RedisPlace) -> MatchDataWebSocketManager:
    chosen = Settings(redis_namespace=redis_place.namespace, canary_interval=0.2)
    return MatchDataWebSocketManager(None, True, redis_place.url, settings=chosen)


@async_test
async def test_an_event_published_directly_is_delivered_live_and_has_no_id(
    redis_manager: MatchDataWebSocketManager, redis_place: RedisPlace, stream: Stream
) -> None:
    notifier = RedisNotifierService(redis_place.url, f"{redis_place.namespace}:events")
    await notifier.connect()
    async with connected(redis_manager):
        client = await joined(redis_manager)
        stream.add("5-2", "with an id")
        assert await notifier.publish("football_event_change", {"match_id": 1, "data": "direct"}) == 1
        stream.add("5-3", "with an id")
        await wait_until_async(lambda: len(client.data) == 3)
        updates = [message for message in client.messages if "operation" in message]
        assert [(update["id"], update["type"]) for update in updates] == [
            ("5-2", "match-update"),
            (None, "event-update"),
            ("5-3", "match-update"),
        ]
        assert updates[1]["data"] == "direct"
    await notifier.disconnect()


@async_test
async def test_the_initial_load_has_the_position_and_what_follows_comes_after_it(
    redis_manager: MatchDataWebSocketManager, stream: Stream
) -> None:
    async with connected(redis_manager):
        stream.add("5-2", 2)
        early = await joined(redis_manager, name="early")
        await wait_until_async(lambda: early.data)
        late = await joined(redis_manager, name="late")
        stream.add("5-3", 3)
        await wait_until_async(lambda: late.data)
        assert early.messages[0]["id"] == "5-1"
        assert late.messages[0]["id"] == "5-2"
        assert late.data == [3]


@async_test
async def test_events_that_pub_sub_lost_come_from_the_stream_once_and_in_order(
    redis_manager: MatchDataWebSocketManager, stream: Stream
) -> None:
    async with connected(redis_manager):
        client = await joined(redis_manager)
        stream.add("5-2", 2, publish=False)
        stream.add("5-3", 3)  # a jump
        await wait_until_async(lambda: client.data == [2, 3])
        stream.kill()
        for sequence in range(4, 2500):
            stream.add(f"5-{sequence}", sequence, publish=False)
        await wait_until_async(lambda: client.data[-1] == 2499)
        stream.add("5-2500", 2500, publish=False)  # a last message that was lost shows no jump
        await wait_until_async(lambda: client.data[-1] == 2500)
        stream.publish(stream.event("5-2500", "again"))
        stream.add("5-2501", 2501)
        await wait_until_async(lambda: client.data[-1] == 2501)
        assert client.data == list(range(2, 2502))
        assert not client.of("resync")


@async_test
async def test_a_new_epoch_and_a_stream_that_goes_on_in_an_earlier_one_are_announced_with_a_resync(
    redis_manager: MatchDataWebSocketManager, stream: Stream
) -> None:
    async with connected(redis_manager):
        client = await joined(redis_manager)
        stream.add("6-1", None, b'{"id":"6-1","channel":"pg_notify_mux","payload":{"begin":6},"at":1}')
        stream.add("6-2", "new")
        await wait_until_async(lambda: client.data == ["new"])
        assert [message["type"] for message in client.messages] == ["initial-load", "resync", "match-update"]
        assert client.of("resync")[0]["id"] == "6-1"
        stream.wipe()
        stream.add("4-1", "earlier")
        await wait_until_async(lambda: len(client.of("resync")) == 2)
        assert client.of("resync")[1]["id"] == "4-1"


GARBAGE = [
    b"not JSON",
    b"[]",
    b'{"channel": "match_change", "id": "x", "payload": {"match_id": 1}}',
    b'{"channel": "match_change", "id": "' + b"9" * 5000 + b'-1", "payload": {"match_id": 1}}',
    b'{"channel": "match_change", "payload": {"match_id": "\xff"}}',
    b'{"channel": "match_change", "payload": {"match_id": 1, "data": "\xff"}}',
    b'{"channel": "match_change", "payload": ' + b"[" * 9000 + b"]" * 9000 + b"}",
]


@async_test
async def test_a_published_text_that_is_not_an_event_is_logged_and_skipped(
    redis_manager: MatchDataWebSocketManager, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(redis_manager):
        client = await joined(redis_manager)
        for text in GARBAGE:
            stream.publish(text)
        stream.add("5-2", "after")
        await wait_until_async(lambda: client.data)
        assert client.data == ["after"]
        assert redis_manager.is_connected
    logged = [message for message in caplog.messages if message.startswith("what was published is not an event: ")]
    assert len(logged) == len(GARBAGE)


@async_test
async def test_a_stream_entry_that_is_not_an_event_is_logged_and_skipped_and_is_no_gap(
    redis_manager: MatchDataWebSocketManager, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(redis_manager):
        client = await joined(redis_manager)
        for number, text in enumerate(GARBAGE[4:], 2):
            stream.add(f"5-{number}", None, text, publish=False)
        stream.add("5-5", "after")
        await wait_until_async(lambda: client.data)
        assert client.data == ["after"]
        assert not client.of("resync")
    assert "the stream's entry 5-2 is not an event: " in caplog.text


@pytest.mark.long
@async_test
async def test_a_frozen_redis_delays_events_and_loses_none(template: Path, tmp_path: Path) -> None:
    servers = Servers(tmp_path / "own", template)
    servers.start_redis()
    assert servers.redis
    with closing(Stream(RedisPlace(servers.embedded.redis_url, "test"))) as stream:
        stream.add("5-1", 1)
        async with connected(Place("redis", servers).manager()) as manager:
            client = await joined(manager)
            servers.redis.freeze()
            await wait_until_async(lambda: not manager.is_connected)
            servers.redis.thaw()
            for number in range(2, 50):
                stream.add(f"5-{number}", number)
            await wait_until_async(lambda: client.data[-1:] == [49])
            assert client.data == list(range(2, 50))
            await wait_until_async(lambda: manager.is_connected)
    servers.end()


# PostgreSQL mode.


@async_test
async def test_in_postgresql_mode_every_payload_is_delivered_in_order(database: str) -> None:
    manager = MatchDataWebSocketManager(database)
    async with connected(manager):
        client = await joined(manager, "m", "c")
        payloads = ["", "not JSON", "[]", "\N{SNOWMAN}", "x" * 7999, '{"match_id": "m", "data": "' + "y" * 7900 + '"}']
        with closing(psycopg.connect(database, autocommit=True)) as connection:
            for payload in payloads:
                connection.execute("SELECT pg_notify('match_change', %s)", [payload])
            query = 'SELECT pg_notify(\'match_change\', format(\'{"match_id": "m", "data": %%s}\', n)) '
            connection.execute(query + "FROM generate_series(1, %s) n", [2000])
        await wait_until_async(lambda: len(client.data) == 2001)
        assert client.data == ["y" * 7900, *range(1, 2001)]


@async_test
async def test_in_postgresql_mode_one_session_shows_listen_at_every_moment(database: str) -> None:
    chosen = Settings(canary_interval=0.1, pod_name="here")
    query = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"
    async with connected(MatchDataWebSocketManager(database, settings=chosen)):
        with closing(psycopg.connect(database, autocommit=True)) as connection:

            def shows_listen() -> bool:
                [(text,)] = connection.execute(query, ["notifymux-worker/here"]).fetchall()
                return str(text).startswith("LISTEN")

            await hold_for_async(1.0, shows_listen)


@async_test
async def test_in_postgresql_mode_a_new_session_is_a_resync_with_a_fresh_snapshot(database: str) -> None:
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        connection.execute("CREATE TABLE score (match_id int, points int)")
        connection.execute("INSERT INTO score VALUES (1, 7)")
        query = "SELECT to_json(points) FROM score WHERE match_id = %(match_id)s::int"
        chosen = Settings(snapshot_query=query, pod_name="here")
        async with connected(MatchDataWebSocketManager(database, settings=chosen)) as manager:
            client = await joined(manager)
            connection.execute("UPDATE score SET points = 8")
            kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
            connection.execute(kill, ["notifymux-worker/here"])
            await wait_until_async(lambda: client.of("resync"))
    assert [(message["type"], message["id"], message["data"]) for message in client.messages] == [
        ("initial-load", None, 7),
        ("resync", None, 8),
    ]
