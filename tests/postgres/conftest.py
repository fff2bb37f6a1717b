"""PostgreSQL servers of a test's own, and programs as an ordinary role beside them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisPlace, StartApp, StartListener, redis_mode
from tests.postgres.observed import Start
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.proxy import Proxy


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> PostgresServer:
    """A cluster that is not started, to be copied."""
    return PostgresServer.initialise(tmp_path_factory.mktemp("cluster") / "data")


@pytest.fixture
def primary(cluster: PostgresServer, tmp_path: Path) -> Iterator[PostgresServer]:
    """A server that runs."""
    with cluster.copy(tmp_path / "primary").start() as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer, tmp_path: Path) -> Iterator[PostgresServer]:
    """Its standby."""
    with primary.standby(tmp_path / "standby") as server:
        yield server


@pytest.fixture
def address(primary: PostgresServer) -> Iterator[Proxy]:
    """An address that leads to the primary, until it is told to lead to another server."""
    with Proxy(primary.port) as proxy:
        yield proxy


@pytest.fixture
def settings(address: Proxy, primary: PostgresServer, redis_place: RedisPlace) -> dict[str, str]:
    """What a program needs to know to reach PostgreSQL by the address, in Redis mode."""
    return redis_mode(primary.conninfo(ROLE), redis_place) | {"DB_PORT": str(address.port)}


@pytest.fixture(params=["listener", "worker that LISTENs itself"])
def start(request: pytest.FixtureRequest, start_listener: StartListener, start_app: StartApp) -> Start:
    """Starts a program that LISTENs."""
    if request.param == "listener":
        return start_listener
    return lambda settings: start_app(settings | {"USE_REDIS_NOTIFIER": "false"})
