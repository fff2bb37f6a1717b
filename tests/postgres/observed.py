"""What several tests wait for and read."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.conftest import RedisPlace
from tests.support.postgres_cluster import PostgresServer
from tests.support.process import Process
from tests.support.programs import Client
from tests.support.waiting import wait_until

MATCH = 7  # of every row that a test inserts

Start = Callable[[dict[str, str]], Process]


def listened_to(server: PostgresServer, program: Process, within: float = 20.0) -> None:
    """Waits until a program LISTENs to this server; it must live on until then."""

    def is_listened_to() -> bool:
        assert program.running, program.log
        return bool(server.listening())

    wait_until(is_listened_to, within, lambda: program.log)


def heard(client: Client) -> list[int]:
    """The rows that a client was told of."""
    return [update["data"] for update in client.updates]


def epochs(place: RedisPlace) -> list[int]:
    """The epochs in the stream, in order."""
    with closing(place.client()) as client:
        entries: Any = client.xrange(f"{{{place.namespace}}}:log")
    return list(dict.fromkeys(int(key.split(b"-")[0]) for key, _ in entries))


def run(server: PostgresServer, statement: str) -> None:
    """Runs one statement, built from a test's own parameters, as superuser."""
    with closing(server.connect()) as connection:
        connection.execute(statement.encode())
