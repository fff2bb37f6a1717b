"""Reserves: of several listeners, LISTENERS_MAX hold a PostgreSQL session (docs/operations.md, Reserves)."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.conftest import RedisPlace, StartApp, StartListener, Verify
from tests.support.programs import App
from tests.support.waiting import wait_until

LISTENING = """
SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'
"""


class Pods:
    """Listeners, each of a pod of its own, as Redis and PostgreSQL show them."""

    def __init__(self, place: RedisPlace, connection: psycopg.Connection) -> None:
        self._redis, self._pattern = place.client(), f"{{{place.namespace}}}:listener:*"
        self._connection = connection

    @property
    def roles(self) -> dict[str, str]:
        """The role of each pod's listener, as its last heartbeat says."""
        hashes: list[Any] = [self._redis.hgetall(key) for key in self._redis.scan_iter(match=self._pattern)]
        running = [found for found in hashes if found.get(b"state") == b"running"]
        return {found[b"pod"].decode(): found[b"role"].decode() for found in running}

    @property
    def listening(self) -> set[str]:
        """The pods that have a session that LISTENs."""
        return {name.rpartition("/")[2] for _, name in self._connection.execute(LISTENING.encode())}

    @property
    def aligned(self) -> set[str]:
        return {pod for pod, role in self.roles.items() if role in {"primary", "standby"}}

    def shown(self) -> str:
        return f"{self.roles}, LISTEN: {self.listening}"

    def close(self) -> None:
        self._redis.close()


@pytest.fixture
def pods(redis_place: RedisPlace, connection: psycopg.Connection) -> Iterator[Pods]:
    with closing(Pods(redis_place, connection)) as pods:
        yield pods


def test_a_reserve_is_healthy_and_takes_the_place_of_a_listener_that_ends(
    settings: dict[str, str], pods: Pods, start_listener: StartListener, start_remote_app: StartApp, verify: Verify
) -> None:
    settings |= {"LISTENERS_MAX": "1"}
    first = start_listener(settings | {"POD_NAME": "a"}).wait_until_aligned()
    second = start_listener(settings | {"POD_NAME": "b"})
    app: App = start_remote_app(settings | {"POD_NAME": "c"}).wait_until_ready()
    wait_until(lambda: pods.roles == {"a": "primary", "b": "reserve"}, what=pods.shown)
    assert pods.listening == {"a"}
    wait_until(lambda: app.get("/api/status")[1]["problems"] == [], what=lambda: str(app.get("/api/status")))
    shown = app.get("/api/status")[1]
    assert (shown["state"], shown["postgres"]["state"]) == ("healthy", "up")
    alive = {row["pod"]: row["role"] for row in shown["listeners"] if row["state"] == "alive"}
    assert alive == {"a": "primary", "b": "reserve"}
    with app.client(5) as client:
        client.wait_for_initial_load()
        assert verify(settings | {"POD_NAME": "b"}).with_status("failed") == []
        first.stop()
        second.wait_until_aligned()
        wait_until(lambda: (pods.roles, pods.listening) == ({"b": "primary"}, {"b"}), what=pods.shown)
        assert len(wait_until(lambda: client.of_type("resync"), what="the gap is announced")) == 1
