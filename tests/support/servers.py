"""Real PostgreSQL and Valkey servers, and databases in them."""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.appliance.embedded.postgres import initialise
from app.appliance.embedded.servers import EmbeddedServers
from app.appliance.embedded.valkey import make_folder
from tests.support.process import Process
from tests.support.waiting import wait_until

# Below the ports of the embedded servers, and below those that Linux gives to outgoing connections: one of thousands of
# connections could take the port before the program listens on it.
_PORTS = range(10_000, 20_000)
# pytest's processes run side by side, and each has ports of its own.
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_given: deque[int] = deque(maxlen=500)  # the last ports, which their programs may not have bound yet


def free_port() -> int:
    """Return an unused loopback port."""
    while True:
        port = random.choice(_PORTS[_PROCESS::_PROCESSES])
        if port in _given:
            continue
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            _given.append(port)
            return port


class Servers:
    """The embedded PostgreSQL and Valkey, which can be started, stopped, killed and frozen.

    As a context manager, it starts both and ends both.

    Args:
        folder: for the data; it is created.
        template: a folder with initialised data to copy. Without one, PostgreSQL is initialised, which takes seconds.
        postgres_settings: of PostgreSQL.
    """

    def __init__(
        self, folder: Path, template: Path | None = None, postgres_settings: Mapping[str, str] | None = None
    ) -> None:
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
        with (data / "postgres/postgresql.auto.conf").open("a", encoding="ascii") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in (postgres_settings or {}).items())
        make_folder(data)
        self.postgres: Process | None = None
        self.redis: Process | None = None

    def __enter__(self) -> Self:
        try:
            self.start_postgres()
            self.start_redis()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a program that uses both servers in Redis mode."""
        settings = {"REDIS_URL": self.embedded.redis_url, "USE_REDIS_NOTIFIER": "true"}
        return database_settings(self.embedded.database_url) | settings

    def start_postgres(self) -> None:
        """Start PostgreSQL and wait until it accepts connections."""
        self.postgres = Process([sys.executable, "-m", "app.appliance", "postgres"], self.folder, {})
        wait_until(self._postgres_accepts, 30, self.postgres.log)

    def start_redis(self) -> None:
        """Start Valkey and wait until it answers."""
        self.redis = Process([sys.executable, "-m", "app.appliance", "valkey"], self.folder, {})
        wait_until(self._redis_answers, 30, self.redis.log)

    def stop_postgres(self) -> None:
        """Stop PostgreSQL as `pg_ctl stop -m fast` does, which terminates its sessions."""
        assert self.postgres
        self.postgres.signal(2)
        self.postgres.exit_code(30)

    def stop_redis(self) -> None:
        """Stop Valkey with SIGTERM."""
        assert self.redis
        self.redis.stop(30)

    def restart_redis_without_data(self) -> None:
        """Kill Valkey and start it again without its files."""
        assert self.redis
        self.redis.kill()
        for path in (self.embedded.data / "valkey").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.start_redis()

    @property
    def redis_process(self) -> Process:
        """The process that answers at Redis's address."""
        assert self.redis
        return self.redis

    def end(self) -> None:
        """End both processes, whatever their state."""
        for process in (self.postgres, self.redis):
            if process:
                process.end()

    def _postgres_accepts(self) -> bool:
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


@contextmanager
def temporary_servers(name: str, postgres_settings: Mapping[str, str] | None = None) -> Iterator[Servers]:
    """Run both servers while the block runs, in a temporary folder whose name contains `name`."""
    with tempfile.TemporaryDirectory(prefix=f"notifymux-{name}-") as folder:
        Path(folder).chmod(0o755)  # the servers run under another account
        with Servers(Path(folder) / "servers", postgres_settings=postgres_settings) as servers:
            yield servers


def database_settings(conninfo: str, port: int | None = None) -> dict[str, str]:
    """Convert a connection string to settings. `port` replaces its port, for example by that of a proxy."""
    parts = conninfo_to_dict(conninfo)
    names = {"host": "DB_HOST", "port": "DB_PORT", "user": "DB_USER", "password": "DB_PASSWORD", "dbname": "DB_NAME"}
    settings = {names[name]: str(value) for name, value in parts.items() if name in names}
    return settings | ({"DB_PORT": str(port)} if port else {})


def new_database(conninfo: str, name: str) -> str:
    """Create a database and return its connection string."""
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return make_conninfo(conninfo, dbname=name)


def drop_database(conninfo: str, name: str) -> None:
    """Drop a database and terminate its sessions."""
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def redis_url_with_port(url: str, port: int) -> str:
    """Replace the host and port of a Redis URL by a loopback port, for example that of a proxy."""
    parts = urlsplit(url)
    userinfo = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{userinfo}@127.0.0.1:{port}" if userinfo else f"127.0.0.1:{port}").geturl()
