"""The servers that a benchmark uses, and separate databases and namespaces in them."""

import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import redis
from psycopg.conninfo import conninfo_to_dict

from bench.events import SERIAL
from notifymux.event import Event, decode
from notifymux.redis_keys import EVENT_FIELD, RedisNames
from tests.support.servers import Servers, database_settings, drop_database, new_database, temporary_servers

# PostgreSQL's default is 100, but `writers` has 100 sessions that LISTEN, and others that write.
_MAX_CONNECTIONS = 250
_LIBPQ = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE",
          "sslmode": "PGSSLMODE"}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A folder, a database and a Redis namespace that no other program uses."""

    folder: Path
    database: str
    redis_url: str
    namespace: str

    @property
    def settings(self) -> dict[str, str]:
        """The settings of notifymux's programs."""
        return database_settings(self.database) | {"REDIS_URL": self.redis_url, "REDIS_NAMESPACE": self.namespace}

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of other programs: those that libpq reads, and REDIS_URL."""
        parts = conninfo_to_dict(self.database)
        found = {variable: str(parts[name]) for name, variable in _LIBPQ.items() if name in parts}
        return found | {"REDIS_URL": self.redis_url}


def stream_events(place: Place) -> dict[int, Event]:
    """Return the events of a place's stream by serial."""
    with closing(redis.Redis.from_url(place.redis_url)) as client:
        entries: Any = client.xrange(RedisNames(place.namespace).log)
    texts = [fields[EVENT_FIELD.encode()] for _, fields in entries]
    return {int(found[1]): decode(text) for text in texts if (found := SERIAL.search(text))}


@dataclass
class Environment:
    """The servers.

    Args:
        folder: for the programs' files.
        database_url: of PostgreSQL.
        redis_url: of Redis or Valkey.
        parts: the main process of each server by name; empty if the servers were given.
    """

    folder: Path
    database_url: str
    redis_url: str
    parts: Mapping[str, int] = field(default_factory=dict)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Create a place, and remove it when the block ends."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        folder = self.folder / name
        folder.mkdir()
        try:
            yield Place(folder, new_database(self.database_url, name), self.redis_url, name)
        finally:
            drop_database(self.database_url, name)
            with closing(redis.Redis.from_url(self.redis_url)) as client:
                for key in client.scan_iter(match=f"{{{name}}}:*", count=1000):
                    client.delete(key)

    @property
    def server_versions(self) -> str:
        """The versions of both servers, and whether they are embedded."""
        with closing(psycopg.connect(self.database_url)) as connection:
            postgres = connection.info.parameter_status("server_version")
        with closing(redis.Redis.from_url(self.redis_url)) as client:
            info = client.info("server")
        name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
        return f"PostgreSQL {postgres}, {name}, {'embedded' if self.parts else 'given'}"


@contextmanager
def running_environment(database_url: str | None = None, redis_url: str | None = None) -> Iterator[Environment]:
    """Use the servers that are given (both or none), or run embedded ones while the block runs."""
    if database_url and redis_url:
        with tempfile.TemporaryDirectory(prefix="notifymux-bench-") as folder:
            yield Environment(Path(folder), database_url, redis_url)
        return
    with temporary_servers("bench") as servers:
        _configure(servers)
        yield environment_of(servers)


def environment_of(servers: Servers) -> Environment:
    """Return the environment of embedded servers that run."""
    assert servers.postgres
    parts = {"postgres": servers.postgres.pid, "redis": servers.redis_process.pid}
    return Environment(servers.folder, servers.embedded.database_url, servers.embedded.redis_url, parts)


def _configure(servers: Servers) -> None:
    with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute(f"ALTER SYSTEM SET max_connections = {_MAX_CONNECTIONS}".encode())
        connection.execute("ALTER SYSTEM SET wal_level = 'logical'")  # for the bench `wal`
    servers.stop_postgres()
    servers.start_postgres()
