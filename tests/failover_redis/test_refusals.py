"""A Redis that answers and refuses: what is held stays held, it is said once, and shown where operators look."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import pytest

from tests.conftest import StartApp, StartListener, Verify
from tests.failover_redis.test_failover import said
from tests.support.canaries import Canaries
from tests.support.numbered import MATCH, Numbered
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


@contextmanager
def failing_snapshots(server: RedisServer) -> Iterator[None]:
    server.fail_to_save()
    yield
    server.save_again()


@contextmanager
def full(server: RedisServer) -> Iterator[None]:
    server.fill()
    yield
    server.set(maxmemory=0)


@contextmanager
def without_replicas(server: RedisServer) -> Iterator[None]:
    server.set(min_replicas_to_write=1)
    yield
    server.set(min_replicas_to_write=0)


@contextmanager
def running_a_long_script(server: RedisServer) -> Iterator[None]:
    client = server.run_a_long_script()
    yield
    server.stop_the_script(client)


@contextmanager
def loading(server: RedisServer) -> Iterator[None]:
    """Restarted with its data, which it loads for as long as the context lasts; it answers between two keys."""
    server.client.mset({f"filler:{number}": "x" * 2000 for number in range(1000)})
    server.client.save()
    server.kill()
    server.start("--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024", wait=False)
    wait_until(lambda: server.refuses("BusyLoadingError", "GET", "x"))
    yield
    server.set(key_load_delay=0)


class Sickness(NamedTuple):
    last: Callable[[RedisServer], AbstractContextManager[None]]
    word: str  # in what Redis says of it


SICK = {
    "MISCONF": Sickness(failing_snapshots, "stop-writes-on-bgsave-error"),
    "OOM": Sickness(full, "maxmemory"),
    "NOREPLICAS": Sickness(without_replicas, "good replicas"),
    "BUSY": Sickness(running_a_long_script, "busy running a script"),
    "LOADING": Sickness(loading, "loading"),
}


@pytest.mark.parametrize("kind", SICK)
def test_a_refusal_is_waited_out_and_said_once(
    base: dict[str, str],
    database: str,
    server: RedisServer,
    events: Numbered,
    start_listener: StartListener,
    start_remote_app: StartApp,
    kind: str,
) -> None:
    sick = SICK[kind]
    listener = start_listener(base | {"REDIS_URL": server.url}).wait_until_aligned()
    app = start_remote_app(base | {"REDIS_URL": server.url}).wait_until_ready()
    with Canaries(database) as canaries, app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        with sick.last(server):
            for _ in range(7):  # for some seconds, in which it is asked again and again
                events.commit(2)
                canaries.pass_by(1)
            wait_until(lambda: app.get("/readyz")[0] == 503, 10, lambda: str(app.get("/readyz")))
            listener.wait_for_log("Redis is away")
        events.commit(10)
        events.heard_by(client)
        app.wait_until_ready()
        listener.wait_for_log("Redis is back")
    away, back = said(listener, "Redis is away"), said(listener, "Redis is back")
    assert sum(sick.word in line for line in away) == len(back) == 1, "\n".join([*away, *back])
    if kind != "LOADING":  # one that was restarted was away before
        assert len(away) == 1, "\n".join(away)


def shown(body: Any) -> str:
    """What the status page shows of Redis, and what it calls wrong."""
    return "\n".join([str(body["redis"]["outage"]), *body["problems"]])


@pytest.mark.parametrize("kind", SICK)
def test_the_page_and_readyz_say_why_redis_refuses(
    base: dict[str, str],
    server: RedisServer,
    events: Numbered,
    start_listener: StartListener,
    start_app: StartApp,
    kind: str,
) -> None:
    sick = SICK[kind]
    start_listener(base | {"REDIS_URL": server.url}).wait_until_aligned()
    app = start_app(base | {"REDIS_URL": server.url}).wait_until_ready()
    with sick.last(server):
        events.commit(1)
        wait_until(lambda: sick.word in shown(app.get("/api/status")[1]), 10, lambda: shown(app.get("/api/status")[1]))
        wait_until(lambda: sick.word in str(app.get("/readyz")[1]["reasons"]), 5, lambda: str(app.get("/readyz")))
    app.wait_until_ready()
    wait_until(lambda: not app.get("/api/status")[1]["redis"]["outage"])


WRITES_ARE_REFUSED = ("MISCONF", "OOM", "NOREPLICAS")


@pytest.mark.parametrize("kind", WRITES_ARE_REFUSED)
def test_verify_fails_on_a_redis_that_refuses_writes(
    base: dict[str, str], server: RedisServer, start_listener: StartListener, verify: Verify, kind: str
) -> None:
    settings = base | {"REDIS_URL": server.url, "USE_REDIS_NOTIFIER": "false"}
    start_listener(settings).wait_until_aligned()
    assert verify(settings).code == 0
    keys = server.client.dbsize()
    with SICK[kind].last(server):
        checked = verify(settings)
        refused = [name for name in checked.with_status("failed") if SICK[kind].word in checked.text(name)]
        assert refused, {name: checked.text(name) for name in ("Redis persistence", "append script", "canary")}
        assert all(checked.remedy(name) for name in refused)
        assert "canary" not in refused  # it is a check of its own, which tells without a canary that it can't write
    assert server.client.dbsize() == keys, "the real write leaves nothing behind"
