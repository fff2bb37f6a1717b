"""Real servers: the product's own embedded ones, each in a folder of its own, or those that were given."""

import random
import socket
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.appliance.embedded.postgres import initialise
from app.appliance.embedded.servers import EmbeddedServers
from app.appliance.embedded.valkey import make_folder
from tests.support.process import Process
from tests.support.waiting import wait_until

# Below the embedded servers' and the range from which Linux takes the ports of outgoing connections: of thousands of
# those, one might be in the program's place before it starts.
_PORTS = range(10_000, 20_000)


def free_port() -> int:
    """A loopback port that nobody uses."""
    while True:
        port = random.choice(_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Servers:
    """An embedded PostgreSQL and an embedded Valkey that can be started, stopped, killed and frozen.

    Without a template, the database is made anew, which takes seconds.
    """

    def __init__(self, folder: Path, template: Path | None = None) -> None:
        self.folder = folder
        data = folder / "data"
        if template:
            folder.mkdir()
            subprocess.run(["cp", "-a", str(template / "data"), str(data)], check=True)
            (data / "ports.json").unlink()
        else:
            data.mkdir(parents=True)
        self.embedded = EmbeddedServers.choose(data)
        initialise(data)
        make_folder(data)
        self.postgres: Process | None = None
        self.redis: Process | None = None

    def start_postgres(self) -> None:
        """Starts it and waits until it answers."""
        self.postgres = Process([sys.executable, "-m", "app.appliance", "postgres"], self.folder, {})
        wait_until(self._postgres_answers, 30, self.postgres.log)

    def start_redis(self) -> None:
        """Starts it and waits until it answers."""
        self.redis = Process([sys.executable, "-m", "app.appliance", "valkey"], self.folder, {})
        wait_until(self._redis_answers, 30, self.redis.log)

    def stop_postgres(self) -> None:
        """As `pg_ctl stop -m fast` does: sessions are ended."""
        assert self.postgres
        self.postgres.signal(2)
        self.postgres.exit_code(30)

    def stop_redis(self) -> None:
        """SIGTERM."""
        assert self.redis
        self.redis.stop(30)

    def end(self) -> None:
        """Both are gone afterwards."""
        for process in (self.postgres, self.redis):
            if process:
                process.end()

    def _postgres_answers(self) -> bool:
        with (
            suppress(psycopg.OperationalError),
            closing(psycopg.connect(self.embedded.database_url, connect_timeout=2)),
        ):
            return True
        return False

    def _redis_answers(self) -> bool:
        with suppress(redis.RedisError), closing(redis.Redis.from_url(self.embedded.redis_url)) as client:
            return bool(client.ping())
        return False


def database_settings(conninfo: str, port: int | None = None) -> dict[str, str]:
    """A connection string as the variables that a program takes; `port` leads through a proxy instead."""
    parts = conninfo_to_dict(conninfo)
    names = {"host": "DB_HOST", "port": "DB_PORT", "user": "DB_USER", "password": "DB_PASSWORD", "dbname": "DB_NAME"}
    settings = {names[name]: str(value) for name, value in parts.items() if name in names}
    return settings | ({"DB_PORT": str(port)} if port else {})


def new_database(conninfo: str, name: str) -> str:
    """Creates a database and returns its connection string."""
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return make_conninfo(conninfo, dbname=name)


def drop_database(conninfo: str, name: str) -> None:
    """Drops it, whoever is connected."""
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def through(url: str, port: int) -> str:
    """A Redis URL that leads to another port."""
    parts = urlsplit(url)
    userinfo = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{userinfo}@127.0.0.1:{port}" if userinfo else f"127.0.0.1:{port}").geturl()
