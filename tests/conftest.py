"""The two tiers of tests, and fixtures for servers and programs.

TEST_DATABASE_URL and TEST_REDIS_URL name servers to use. Without them, the tests start embedded servers. A test that
stops or freezes servers always gets its own.
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

from notifymux.redis_keys import RedisNames
from tests.support.process import ROOT
from tests.support.programs import App, Listener, Verification
from tests.support.servers import Servers, database_settings, drop_database, new_database

# The duration of an example depends on the load of the machine, so there is no deadline.
hypothesis.settings.register_profile("notifymux", deadline=None)
hypothesis.settings.load_profile("notifymux")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier", choices=["short", "long"], default="short", help="long also runs the soaks and the outages"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--tier") == "short":
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with initialised data of both servers, which is copied for each new pair of servers."""
    folder = tmp_path_factory.mktemp("template")
    Servers(folder)
    return folder


@pytest.fixture(scope="session")
def shared_servers(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers(tmp_path_factory.mktemp("servers") / "shared", template) as servers:
        yield servers


@pytest.fixture
def servers(template: Path, tmp_path: Path) -> Iterator[Servers]:
    """Running servers for one test, which it may stop, kill and freeze."""
    with Servers(tmp_path / "own", template) as servers:
        yield servers


@contextmanager
def fresh_database(request: pytest.FixtureRequest) -> Iterator[str]:
    url = os.environ.get("TEST_DATABASE_URL") or request.getfixturevalue("shared_servers").embedded.database_url
    name = f"notifymux_test_{uuid.uuid4().hex[:12]}"
    yield new_database(make_conninfo(url), name)
    drop_database(url, name)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The connection string of a new database."""
    with fresh_database(request) as database:
        yield database


class RedisPlace(NamedTuple):
    """A Redis server, and a namespace in it that no other test uses."""

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
        # The entry of a listener that stopped. If the registry is empty, a new listener waits 2 s before it starts an
        # epoch (rule 5 in docs/numbering.md).
        entry = RedisNames(place.namespace).listener("earlier", "0")
        client.hset(entry, mapping={"pod": "earlier", "program": "listener", "state": "stopped"})
        client.pexpire(entry, 60_000)
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
    """Return the settings of a program that uses a database and a namespace in Redis mode."""
    return database_settings(database) | redis_place.settings | {"USE_REDIS_NOTIFIER": "true", "CANARY_INTERVAL": "0.5"}


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        yield connection


StartListener = Callable[[Mapping[str, str]], Listener]
StartApp = Callable[..., App]
Verify = Callable[..., Verification]


@pytest.fixture
def start_listener(tmp_path: Path) -> Iterator[StartListener]:
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(Listener(tmp_path, settings))


@pytest.fixture
def start_app(tmp_path: Path) -> Iterator[StartApp]:
    with ExitStack() as stack:
        yield lambda settings, workers=1: stack.enter_context(App(tmp_path, settings, workers))


@pytest.fixture
def start_remote_app(tmp_path: Path) -> Iterator[StartApp]:
    """Starts an application in a pod without a listener, so that it is not fed."""
    folder = tmp_path / "remote"
    folder.mkdir()
    with ExitStack() as stack:
        yield lambda settings, workers=1: stack.enter_context(App(folder, settings, workers))


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    return lambda settings, *options: Verification(tmp_path, settings, *options)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT
