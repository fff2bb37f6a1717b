"""Listeners of different clusters on one Redis and namespace: one appends, the others are passive and log why."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisPlace, StartApp, StartListener, Verify, redis_mode
from tests.postgres.observed import MATCH, epochs, heard
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.programs import App, Listener
from tests.support.waiting import hold_for, wait_until

pytestmark = pytest.mark.long


@pytest.fixture(scope="session")
def other_cluster(tmp_path_factory: pytest.TempPathFactory) -> PostgresServer:
    """A cluster that has nothing in common with the first but its databases' names."""
    return PostgresServer.initialise(tmp_path_factory.mktemp("other") / "data")


@pytest.fixture
def stranger(other_cluster: PostgresServer, tmp_path: Path) -> Iterator[PostgresServer]:
    """Its server, which runs."""
    with other_cluster.copy(tmp_path / "stranger").start() as server:
        yield server


@pytest.fixture
def copy(primary: PostgresServer, tmp_path: Path) -> Iterator[PostgresServer]:
    """A restored backup of the primary, of the same cluster and on the same timeline."""
    with primary.backup(tmp_path / "copy").start() as server:
        yield server


def pod(name: str, server: PostgresServer, place: RedisPlace) -> dict[str, str]:
    """The settings of one pod, whose PostgreSQL is `server`."""
    return redis_mode(server.conninfo(ROLE), place) | {"POD_NAME": name}


def says(listener: Listener, pattern: str, within: float) -> None:
    """Waits for a line that matches, of a listener that lives on."""

    def said() -> bool:
        assert listener.running, listener.log
        return any(re.search(pattern, line) for line in listener.lines)

    wait_until(said, within, lambda: f"{pattern}:\n{listener.log}")


def problem(app: App, pattern: str) -> None:
    """Waits until the status page shows it."""
    wait_until(
        lambda: any(re.search(pattern, text) for text in app.get("/api/status")[1]["problems"]),
        10,
        lambda: str(app.get("/api/status")[1]["problems"]),
    )


# Two clusters with one database name.


def test_a_listener_of_another_cluster_stays_passive_and_log_page_and_verify_name_the_cause(
    primary: PostgresServer,
    stranger: PostgresServer,
    redis_place: RedisPlace,
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
) -> None:
    start_listener(pod("at-work", primary, redis_place)).wait_until_aligned()
    app = start_app(pod("at-work", primary, redis_place)).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        begun = epochs(redis_place)
        foreign = start_listener(pod("foreign", stranger, redis_place))
        says(foreign, r"passive.*another PostgreSQL cluster|another PostgreSQL cluster.*passive", 10)
        stranger.insert(100, 105)
        primary.insert(1, 20)
        client.wait_for_updates(20)
        problem(app, r"foreign/listener.*another PostgreSQL cluster")
        hold_for(4, lambda: epochs(redis_place) == begun and not client.of_type("resync"))
        assert heard(client) == list(range(1, 21))
    verified = verify(pod("foreign", stranger, redis_place))
    assert verified.code == 1
    assert any("another PostgreSQL cluster" in (verified.text(name) or "") for name in verified.with_status("failed"))


def test_a_foreign_listener_begins_when_the_one_at_work_has_gone(
    primary: PostgresServer,
    stranger: PostgresServer,
    redis_place: RedisPlace,
    start_listener: StartListener,
) -> None:
    at_work = start_listener(pod("at-work", primary, redis_place)).wait_until_aligned()
    foreign = start_listener(pod("foreign", stranger, redis_place))
    says(foreign, "another PostgreSQL cluster", 10)
    assert at_work.stop() == 0
    foreign.wait_until_aligned(within=10)


# Two servers of one cluster.


@pytest.mark.parametrize("promotions", [1, 2])
def test_after_a_split_failover_the_listener_on_the_lower_timeline_yields_for_good(
    primary: PostgresServer,
    standby: PostgresServer,
    redis_place: RedisPlace,
    start_listener: StartListener,
    start_app: StartApp,
    promotions: int,
) -> None:
    lower = start_listener(pod("lower", primary, redis_place)).wait_until_aligned()
    app = start_app(pod("lower", primary, redis_place)).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        standby.promote()
        for _ in range(1, promotions):
            standby.stop()
            standby.recover()
            standby.promote()
        higher = start_listener(pod("higher", standby, redis_place)).wait_until_aligned(within=10)
        says(lower, "lower timeline", 10)
        wait_until(lambda: client.of_type("resync"))
        begun = epochs(redis_place)
        primary.insert(100, 105)
        standby.insert(1, 10)
        client.wait_for_updates(10)
        hold_for(4, lambda: epochs(redis_place) == begun)
        assert heard(client) == list(range(1, 11))
        assert len(client.of_type("resync")) == 1
        problem(app, "lower/listener.*lower timeline")
        assert higher.stop() == 0
        hold_for(6, lambda: lower.running and epochs(redis_place) == begun, lower.log)


@pytest.mark.parametrize("kind", ["restored as it was", "promoted, as the other was"])
def test_of_two_copies_with_one_identity_one_goes_passive_and_names_the_cause(
    primary: PostgresServer,
    copy: PostgresServer,
    tmp_path: Path,
    redis_place: RedisPlace,
    start_listener: StartListener,
    kind: str,
) -> None:
    if kind == "promoted, as the other was":  # both are on timeline 2 then
        for server in (primary, copy):
            server.stop()
            server.recover()
            server.promote()
    servers = {"original": primary, "copy": copy}
    listeners = {name: start_listener(pod(name, server, redis_place)) for name, server in servers.items()}
    listeners["original"].wait_until_aligned()

    def passive() -> str | None:
        for name, listener in listeners.items():
            assert listener.running, listener.log
            if re.search(r"passive.*copy|copy.*passive", listener.log):
                return name
        return None

    def logs() -> str:
        return "\n".join(listener.log for listener in listeners.values())

    loser = wait_until(passive, 60, logs)
    begun = epochs(redis_place)
    hold_for(15, lambda: epochs(redis_place)[-1:] == begun[-1:], logs())
    assert passive() == loser
