"""Real servers for every test, and the two tiers.

TEST_DATABASE_URL and TEST_REDIS_URL point the tests at servers that are already there; without them the product's own
embedded ones are started. A test that stops its servers always has its own.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import hypothesis
import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from app.core.redis_keys import RedisNames
from tests.support.process import ROOT
from tests.support.programs import App, Listener, Verification
from tests.support.servers import Servers, database_settings, drop_database, new_database

# How long an example takes says more about the machine than about the product.
hypothesis.settings.register_profile("notifymux", deadline=None)
hypothesis.settings.load_profile("notifymux")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=["short", "long"], default="short", help="long: soaks and outages as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--tier") == "short":
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fresh data of both servers, to be copied."""
    folder = tmp_path_factory.mktemp("template")
    Servers(folder)
    return folder


@pytest.fixture(scope="session")
def shared_servers(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    servers = Servers(folder / "shared", template)
    try:
        servers.start_postgres()
        servers.start_redis()
        yield servers
    finally:
        servers.end()


@pytest.fixture
def servers(template: Path, tmp_path: Path) -> Iterator[Servers]:
    """Servers of the test's own, both running, which it may stop, kill and freeze."""
    servers = Servers(tmp_path / "own", template)
    try:
        servers.start_postgres()
        servers.start_redis()
        yield servers
    finally:
        servers.end()


@contextmanager
def fresh_database(request: pytest.FixtureRequest) -> Iterator[str]:
    url = os.environ.get("TEST_DATABASE_URL") or request.getfixturevalue("shared_servers").embedded.database_url
    name = f"notifymux_test_{uuid.uuid4().hex[:12]}"
    yield new_database(make_conninfo(url), name)
    drop_database(url, name)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The connection string of a fresh database."""
    with fresh_database(request) as database:
        yield database


class RedisPlace(NamedTuple):
    """A Redis, and a namespace in it that nobody else uses."""

    url: str
    namespace: str

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    @property
    def settings(self) -> dict[str, str]:
        return {"REDIS_URL": self.url, "REDIS_NAMESPACE": self.namespace}


@contextmanager
def fresh_redis_place(request: pytest.FixtureRequest) -> Iterator[RedisPlace]:
    url = os.environ.get("TEST_REDIS_URL") or request.getfixturevalue("shared_servers").embedded.redis_url
    place = RedisPlace(url, f"test_{uuid.uuid4().hex[:12]}")
    with closing(place.client()) as client:
        # Of one that ended in order; where there is no trace of anybody, a listener waits for 2 s (rule 5).
        trace = RedisNames(place.namespace).listener("earlier", "0")
        client.hset(trace, mapping={"pod": "earlier", "program": "listener", "state": "stopped"})
        client.pexpire(trace, 60_000)
    yield place
    with closing(place.client()) as client:
        for key in client.scan_iter(match=f"{{{place.namespace}}}:*"):
            client.delete(key)


@pytest.fixture
def redis_place(request: pytest.FixtureRequest) -> Iterator[RedisPlace]:
    with fresh_redis_place(request) as place:
        yield place


@pytest.fixture
def redis_url(redis_place: RedisPlace) -> str:
    return redis_place.url


@pytest.fixture
def settings(database: str, redis_place: RedisPlace) -> dict[str, str]:
    return redis_mode(database, redis_place)


def redis_mode(database: str, redis_place: RedisPlace) -> dict[str, str]:
    """What a program needs to know to use a database and a namespace, in Redis mode."""
    return database_settings(database) | redis_place.settings | {"USE_REDIS_NOTIFIER": "true", "CANARY_INTERVAL": "0.5"}


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        yield connection


StartListener = Callable[[Mapping[str, str]], Listener]
StartApp = Callable[..., App]
Verify = Callable[[Mapping[str, str]], Verification]


@pytest.fixture
def start_listener(tmp_path: Path) -> Iterator[StartListener]:
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(Listener(tmp_path, settings))


@pytest.fixture
def start_app(tmp_path: Path) -> Iterator[StartApp]:
    with ExitStack() as stack:
        yield lambda settings, workers=1: stack.enter_context(App(tmp_path, settings, workers))


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    return lambda settings: Verification(tmp_path, settings)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT
