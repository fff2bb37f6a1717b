"""A PostgreSQL server with wal_level=logical, a Redis of the test's own, and listeners that read the slot."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.conftest import RedisPlace, redis_mode
from tests.support.postgres_cluster import PostgresServer
from tests.support.programs import Listener
from tests.support.proxy import Proxy
from tests.wal.stream import Stream

StartReader = Callable[..., Listener]


@pytest.fixture(scope="session")
def logical_cluster(tmp_path_factory: pytest.TempPathFactory) -> PostgresServer:
    """A cluster that is not started, to be copied."""
    cluster = PostgresServer.initialise(tmp_path_factory.mktemp("logical") / "data")
    cluster.configure("wal_level", "logical")
    return cluster


@pytest.fixture
def primary(logical_cluster: PostgresServer, tmp_path: Path) -> Iterator[PostgresServer]:
    with logical_cluster.copy(tmp_path / "primary").start() as server:
        yield server


@pytest.fixture
def server(primary: PostgresServer) -> PostgresServer:
    """The same, which keeps at most 64 MB of WAL for a slot."""
    primary.set("max_slot_wal_keep_size", "64MB")
    return primary


@pytest.fixture
def pod(server: PostgresServer, settings: dict[str, str]) -> dict[str, str]:
    """The settings of one pod, listener and workers, that uses that server."""
    return settings | {"DB_PORT": str(server.port), "POD_NAME": "pod-a"}


@pytest.fixture
def stream(redis_place: RedisPlace) -> Stream:
    return Stream(redis_place)


@pytest.fixture
def settings(primary: PostgresServer, redis_place: RedisPlace) -> dict[str, str]:
    """What a listener needs to know to read the slot."""
    wal = {"SOURCE": "wal", "NOTIFY_CHANNELS": "match_change", "STREAM_MAXLEN": "1000000"}
    return redis_mode(primary.conninfo(), redis_place) | wal


class RedisPath(NamedTuple):
    """A way to Redis that can be cut, and the settings of a program that takes it."""

    proxy: Proxy
    settings: dict[str, str]


@pytest.fixture
def redis_path(redis_place: RedisPlace) -> Iterator[RedisPath]:
    port = urlsplit(redis_place.url).port or 6379
    with Proxy(port) as proxy:
        yield RedisPath(proxy, {"REDIS_URL": redis_place.url.replace(str(port), str(proxy.port))})


@pytest.fixture
def start_reader(tmp_path: Path, settings: dict[str, str]) -> Iterator[StartReader]:
    """Starts a listener with these settings, in a pod of its own."""
    pods = iter(range(100))
    with ExitStack() as stack:

        def start(**more: str) -> Listener:
            pod = f"pod-{next(pods)}"
            (folder := tmp_path / pod).mkdir()
            return stack.enter_context(Listener(folder, settings | {"POD_NAME": pod} | more))

        yield start
