"""Clocks that are wrong: events go on, no figure is nonsense, and the page names the clock."""

import re
from pathlib import Path

import pytest

from tests.conftest import RedisPlace, StartApp, StartListener, redis_mode
from tests.postgres.observed import MATCH
from tests.support.clocks import program_off_by, server_off_by
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.programs import App
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

HOUR = 3600


def events_pass_and_the_clock_is_named(server: PostgresServer, app: App, whose: str) -> None:
    with app.wait_until_ready().client(MATCH) as client:
        client.wait_for_initial_load()
        server.insert(1, 10)
        assert [update["data"] for update in client.wait_for_updates(10)] == list(range(1, 11))
        assert not client.of_type("resync")
    wait_until(
        lambda: any(re.search(f"{whose}.*clock", text) for text in app.get("/api/status")[1]["problems"]),
        10,
        lambda: str(app.get("/api/status")[1]),
    )
    status = app.get("/api/status")[1]
    assert status["state"] == "degraded"
    assert status["latency"]["p50_ms"] is None or status["latency"]["p50_ms"] < HOUR, status["latency"]


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_a_listeners_clock_that_is_an_hour_off_is_named(
    primary: PostgresServer,
    settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
    tmp_path: Path,
    ahead: int,
) -> None:
    listener = start_listener(settings | {"POD_NAME": "off"} | program_off_by(ahead, tmp_path)).wait_until_aligned()
    events_pass_and_the_clock_is_named(primary, start_app(settings), "off/listener")
    listener.wait_for_log("clock", 5)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_the_clock_of_a_worker_that_listens_itself_is_named(
    primary: PostgresServer, settings: dict[str, str], start_app: StartApp, tmp_path: Path, ahead: int
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"} | program_off_by(ahead, tmp_path))
    events_pass_and_the_clock_is_named(primary, app, "this worker")


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_postgresqls_own_clock_that_is_an_hour_off_is_named(
    cluster: PostgresServer,
    redis_place: RedisPlace,
    start_listener: StartListener,
    start_app: StartApp,
    tmp_path: Path,
    ahead: int,
) -> None:
    with cluster.copy(tmp_path / "primary").start(server_off_by(ahead)) as primary:
        settings = redis_mode(primary.conninfo(ROLE), redis_place)
        start_listener(settings).wait_until_aligned()
        events_pass_and_the_clock_is_named(primary, start_app(settings), "PostgreSQL")
