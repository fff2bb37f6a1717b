"""A server for all tests of a module."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import fresh_database, fresh_redis_place, redis_mode
from tests.http.server import Server
from tests.support.programs import App, Listener


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server with small queues."""
    folder = tmp_path_factory.mktemp("server")
    with ExitStack() as stack:
        database = stack.enter_context(fresh_database(request))
        settings = redis_mode(database, stack.enter_context(fresh_redis_place(request)))
        settings |= {
            "CLIENT_QUEUE_BYTES": "200000",
            "PING_INTERVAL": "5",
            "SNAPSHOT_QUERY": "SELECT %(match_id)s::text",
        }
        stack.enter_context(Listener(folder, settings)).wait_until_aligned()
        app = stack.enter_context(App(folder, settings)).wait_until_ready()
        yield Server(app, database)
