"""A Redis that a test may harm, a pair of them, and the processes that use it."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.numbered import Numbered
from tests.support.redis_pair import RedisPair
from tests.support.redis_server import RedisServer
from tests.support.servers import database_settings


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[RedisPair]:
    with RedisPair(tmp_path) as pair:
        yield pair


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        server.leave_a_trace()
        yield server


@pytest.fixture
def base(database: str) -> dict[str, str]:
    """Redis mode, without a Redis."""
    return database_settings(database) | {"USE_REDIS_NOTIFIER": "true", "CANARY_INTERVAL": "0.5"}


@pytest.fixture
def events(connection: psycopg.Connection) -> Numbered:
    return Numbered(connection)
