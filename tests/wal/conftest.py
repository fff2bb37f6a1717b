"""A server with wal_level=logical, and the settings of a listener that reads a slot of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisPlace, redis_mode
from tests.support.postgres_cluster import PostgresServer

SLOT = "notifymux"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> PostgresServer:
    """A cluster that is not started, to be copied."""
    return PostgresServer.initialise(tmp_path_factory.mktemp("cluster") / "data")


@pytest.fixture
def server(cluster: PostgresServer, tmp_path: Path) -> Iterator[PostgresServer]:
    """A server that runs, and keeps at most 64 MB of WAL for a slot."""
    with cluster.copy(tmp_path / "server").start(wal_level="logical") as server:
        server.set("max_slot_wal_keep_size", "64MB")
        yield server


@pytest.fixture
def settings(server: PostgresServer, redis_place: RedisPlace) -> dict[str, str]:
    """Of a pod that reads the slot."""
    return redis_mode(server.conninfo(), redis_place) | {"SOURCE": "wal", "WAL_SLOT": SLOT, "POD_NAME": "pod-a"}
