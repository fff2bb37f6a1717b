"""The servers that a measurement runs on: embedded ones, or those that were given; and places of one's own in them."""

import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis
from psycopg.conninfo import conninfo_to_dict

from tests.support.servers import Servers, database_settings, drop_database, new_database

# More than the 100 that PostgreSQL starts with: `writers` has 100 sessions that LISTEN, besides those that write.
_CONNECTIONS = 250
_LIBPQ = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE",
          "sslmode": "PGSSLMODE"}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A database and a namespace in Redis that nobody else uses."""

    folder: Path
    database: str
    redis_url: str
    namespace: str

    @property
    def settings(self) -> dict[str, str]:
        """What a program of ours needs to know to work here."""
        return database_settings(self.database) | {"REDIS_URL": self.redis_url, "REDIS_NAMESPACE": self.namespace}

    @property
    def environment(self) -> dict[str, str]:
        """What other programs need to know: the database in the variables that every client of PostgreSQL reads."""
        parts = conninfo_to_dict(self.database)
        found = {variable: str(parts[name]) for name, variable in _LIBPQ.items() if name in parts}
        return found | {"REDIS_URL": self.redis_url}


@dataclass
class Environment:
    """The servers.

    Args:
        folder: for what programs write.
        database_url: PostgreSQL's.
        redis_url: Redis' or Valkey's.
        parts: the process at the head of each server, where it is ours.
    """

    folder: Path
    database_url: str
    redis_url: str
    parts: Mapping[str, int] = field(default_factory=dict)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A fresh place, gone afterwards."""
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
    def versions(self) -> str:
        """Of both servers."""
        with closing(psycopg.connect(self.database_url)) as connection:
            postgres = connection.info.parameter_status("server_version")
        with closing(redis.Redis.from_url(self.redis_url)) as client:
            info = client.info("server")
        name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
        return f"PostgreSQL {postgres}, {name}, {'embedded' if self.parts else 'given'}"


@contextmanager
def arena(database_url: str | None = None, redis_url: str | None = None) -> Iterator[Environment]:
    """Embedded servers, or those that are given; of which both have to be."""
    with tempfile.TemporaryDirectory(prefix="notifymux-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the servers run under an account of their own
        if database_url and redis_url:
            yield Environment(folder, database_url, redis_url)
            return
        servers = Servers(folder / "servers")
        try:
            servers.start_postgres()
            _allow_connections(servers)
            servers.start_redis()
            assert servers.postgres
            assert servers.redis
            parts = {"postgres": servers.postgres.pid, "redis": servers.redis.pid}
            yield Environment(folder, servers.embedded.database_url, servers.embedded.redis_url, parts)
        finally:
            servers.end()


def _allow_connections(servers: Servers) -> None:
    with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute(f"ALTER SYSTEM SET max_connections = {_CONNECTIONS}".encode())
    servers.stop_postgres()
    servers.start_postgres()
