"""Reserves: of several listeners, LISTENERS_MAX hold a PostgreSQL session (docs/operations.md, Reserves)."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.conftest import RedisPlace, StartApp, StartListener, Verify
from tests.support.output import print_line
from tests.support.programs import App, Listener
from tests.support.proxy import Proxy
from tests.support.servers import redis_url_with_port
from tests.support.waiting import hold_for, wait_until

LISTENING = """
SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'
"""


class Pods:
    """Listeners, each of a pod of its own, as Redis and PostgreSQL show them."""

    def __init__(self, place: RedisPlace, connection: psycopg.Connection) -> None:
        self._redis, self._pattern = place.client(), f"{{{place.namespace}}}:listener:*"
        self._connection = connection
        self.listeners: dict[str, Listener] = {}
        self.proxies: dict[str, Proxy] = {}

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
    second.wait_for_log("this listener is a reserve now")
    wait_until(lambda: app.get("/api/status")[1]["problems"] == [], what=lambda: str(app.get("/api/status")))
    shown = app.get("/api/status")[1]
    assert (shown["state"], shown["postgres"]["state"]) == ("healthy", "up")
    alive = {row["pod"]: row["role"] for row in shown["listeners"] if row["state"] == "alive"}
    assert alive == {"a": "primary", "b": "reserve"}
    with app.client(5) as client:
        client.wait_for_initial_load()
        assert verify(settings | {"POD_NAME": "b"}).with_status("failed") == []
        assert second.log.count("this listener is a reserve now") == 1
        first.stop()
        second.wait_until_aligned()
        wait_until(lambda: (pods.roles, pods.listening) == ({"b": "primary"}, {"b"}), what=pods.shown)
        assert len(wait_until(lambda: client.of_type("resync"), what="the gap is announced")) == 1


def test_a_registry_that_redis_does_not_show_any_more_is_said_once_and_holds_no_event_back(
    settings: dict[str, str], redis_place: RedisPlace, connection: psycopg.Connection, start_listener: StartListener
) -> None:
    user, stream = f"{redis_place.namespace}-few", f"{{{redis_place.namespace}}}:log"
    host = redis_place.url.partition("://")[2].rpartition("@")[2]
    with closing(redis_place.client()) as admin:
        admin.execute_command("ACL", "SETUSER", user, "on", ">few-rights", "~*", "&*", "+@all")  # type: ignore[no-untyped-call]
        try:
            listener = start_listener(settings | {"REDIS_URL": f"redis://{user}:few-rights@{host}"})
            listener.wait_until_aligned()
            admin.execute_command("ACL", "SETUSER", user, "-scan")  # type: ignore[no-untyped-call]
            listener.wait_for_log("Redis does not show the other listeners")
            before: Any = admin.xlen(stream)
            for _ in range(50):
                connection.execute("SELECT pg_notify('match_change', '{}')")
            wait_until(lambda: admin.xlen(stream) >= before + 50)
            assert "Redis is away" not in listener.log
        finally:
            admin.acl_deluser(user)
    assert listener.log.count("Redis does not show the other listeners") == 1


@pytest.fixture
def six(settings: dict[str, str], pods: Pods, start_listener: StartListener, redis_place: RedisPlace) -> Iterator[Pods]:
    """Six listeners; the first reaches PostgreSQL, and the second Redis, through a proxy."""
    with (
        closing(Proxy(int(settings["DB_PORT"]))) as postgres,
        closing(Proxy(urlsplit(redis_place.url).port or 6379)) as redis,
    ):
        pods.proxies = {"PostgreSQL": postgres, "Redis": redis}
        paths = {
            "0": {"DB_HOST": "127.0.0.1", "DB_PORT": str(postgres.port)},
            "1": {"REDIS_URL": redis_url_with_port(redis_place.url, redis.port)},
        }
        for pod in "012345":
            pods.listeners[pod] = start_listener(settings | {"POD_NAME": pod} | paths.get(pod, {}))
            if pod in "012":
                pods.listeners[pod].wait_until_aligned()
        wait_until(lambda: [pods.roles.get(pod) for pod in "345"] == ["reserve"] * 3, what=pods.shown)
        yield pods


def within(seconds: float, condition: Callable[[], bool], pods: Pods) -> None:
    """Wait until a condition holds, on a machine that may be three times slower, and print how long it took."""
    began = time.monotonic()
    wait_until(condition, 3 * seconds, pods.shown)
    print_line(f"after {time.monotonic() - began:.1f} s (goal: {seconds:g} s): {pods.shown()}")


@pytest.mark.long
def test_of_six_listeners_three_hold_a_session_and_three_again_after_one_is_killed_or_frozen(six: Pods) -> None:
    hold_for(1.0, lambda: six.listening == set("012"))
    six.listeners["2"].kill()
    within(10, lambda: len((six.aligned & six.listening) - {"2"}) == len(six.listening) == 3, six)
    frozen = max(six.listening)
    six.listeners[frozen].freeze()
    within(15, lambda: len((six.aligned & six.listening) - {frozen}) == 3, six)
    six.listeners[frozen].thaw()
    within(30, lambda: len(six.listening) == 3, six)


@pytest.mark.long
def test_three_hold_a_session_again_after_one_is_cut_off_from_a_server(six: Pods) -> None:
    six.proxies["PostgreSQL"].stall()
    within(15, lambda: len((six.aligned & six.listening) - {"0"}) == 3, six)
    six.proxies["PostgreSQL"].resume()
    within(30, lambda: six.listening == set("012"), six)
    six.proxies["Redis"].stall()
    within(15, lambda: len((six.aligned & six.listening) - {"1"}) == 3, six)
