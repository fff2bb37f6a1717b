"""A primary that dies and a standby that is promoted: one announced gap, and LISTEN is back within seconds."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import RedisPlace, StartApp, StartListener, redis_mode
from tests.postgres.observed import MATCH, Start, epochs, heard, listened_to
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.proxy import Proxy
from tests.support.waiting import hold_for, wait_until

pytestmark = pytest.mark.long

IS_STANDBY = "SELECT json_build_object('standby', pg_is_in_recovery(), 'match', %(match_id)s::text)"
# Other programs' fail-overs take at least as long.
WITHOUT_A_PRIMARY_SECONDS = 3.0

# One address that leads first to one server and then to the other.


@pytest.mark.parametrize(("listeners", "within"), [(1, 6.0), (2, 8.0)])
def test_a_failover_is_one_announced_gap_that_is_over_within_seconds_of_the_promotion(
    primary: PostgresServer,
    standby: PostgresServer,
    address: Proxy,
    settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
    listeners: int,
    within: float,
) -> None:
    running = [start_listener(settings | {"POD_NAME": f"pod-{n}"}).wait_until_aligned() for n in range(listeners)]
    app = start_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        primary.insert(1, 5)
        client.wait_for_updates(5)
        primary.crash()
        address.redirect_to(standby.port)
        hold_for(WITHOUT_A_PRIMARY_SECONDS, lambda: all(listener.running for listener in running))
        standby.promote()
        log = "\n".join(listener.log for listener in running)
        wait_until(lambda: len(standby.listening()) == listeners, within, log)
        wait_until(lambda: client.of_type("resync"), within, log)
        app.wait_until_ready()
        standby.insert(6, 10)
        client.wait_for_updates(10)
        assert heard(client) == list(range(1, 11))
        assert len(client.of_type("resync")) == 1


def test_tries_are_at_most_a_second_apart_while_the_address_leads_to_a_standby(
    primary: PostgresServer, address: Proxy, settings: dict[str, str], start: Start, tmp_path: Path
) -> None:
    primary.set("log_connections", "on")
    with primary.standby(tmp_path / "standby") as standby:
        address.redirect_to(standby.port)
        program = start(settings)
        tries = re.compile(rf"^(\S+ \S+) .* connection authorized: user={ROLE}", re.MULTILINE)
        hold_for(15, lambda: program.running)
        times = [datetime.fromisoformat(at) for at in tries.findall(standby.log)]
        apart = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
        assert len(apart) >= 6, f"{len(times)} tries in 15 s:\n{program.log}"
        assert sorted(apart)[-3] < 1.5, apart  # the program or the server may pause twice


def test_a_standby_at_the_start_is_waited_for_and_logged_once(
    standby: PostgresServer, address: Proxy, settings: dict[str, str], start: Start
) -> None:
    address.redirect_to(standby.port)
    program = start(settings)
    program.wait_for_log("standby")
    hold_for(WITHOUT_A_PRIMARY_SECONDS, lambda: program.running)
    standby.promote()
    listened_to(standby, program, 6)
    assert sum("standby" in line for line in program.lines) == 1, program.log


def test_a_demoted_primary_that_comes_back_as_a_standby_is_left_for_the_new_primary(
    primary: PostgresServer, standby: PostgresServer, address: Proxy, settings: dict[str, str], start: Start
) -> None:
    program = start(settings)
    listened_to(primary, program)
    primary.stop()
    standby.promote()
    primary.follow(standby)  # and the address still leads to it
    hold_for(WITHOUT_A_PRIMARY_SECONDS, lambda: program.running)
    address.redirect_to(standby.port)
    listened_to(standby, program, 6)


# An address list.


@pytest.fixture(params=["one port", "a port for each host"])
def hosts(
    request: pytest.FixtureRequest, cluster: PostgresServer, redis_place: RedisPlace, tmp_path: Path
) -> Iterator["Hosts"]:
    with ExitStack() as stack:
        primary = stack.enter_context(cluster.copy(tmp_path / "primary").start())
        port = primary.port if request.param == "one port" else None
        standby = stack.enter_context(primary.standby(tmp_path / "standby", host="127.0.0.2", port=port))
        yield Hosts(primary, standby, redis_mode(primary.conninfo(ROLE), redis_place))


class Hosts:
    """A primary and its standby on different hosts, and settings that name both."""

    def __init__(self, primary: PostgresServer, standby: PostgresServer, settings: dict[str, str]) -> None:
        self.primary, self.standby, self._settings = primary, standby, settings

    def settings(self, first: PostgresServer) -> dict[str, str]:
        servers = sorted((self.primary, self.standby), key=lambda server: server is not first)
        ports = dict.fromkeys(str(server.port) for server in servers)
        return self._settings | {"DB_HOST": ",".join(server.host for server in servers), "DB_PORT": ",".join(ports)}


def test_of_several_hosts_the_primary_is_listened_to_wherever_it_is(hosts: Hosts, start: Start) -> None:
    program = start(hosts.settings(first=hosts.standby))
    listened_to(hosts.primary, program)
    hosts.primary.crash()
    hold_for(WITHOUT_A_PRIMARY_SECONDS, lambda: program.running)
    hosts.standby.promote()
    listened_to(hosts.standby, program, 6)


def test_of_several_hosts_the_primary_gives_the_snapshots(
    hosts: Hosts, start_listener: StartListener, start_app: StartApp
) -> None:
    settings = hosts.settings(first=hosts.standby)
    start_listener(settings).wait_until_aligned()
    with start_app(settings | {"SNAPSHOT_QUERY": IS_STANDBY}).wait_until_ready().client(MATCH) as client:
        assert client.wait_for_initial_load()["data"] == {"standby": False, "match": str(MATCH)}


def test_of_several_hosts_one_that_never_answers_is_passed_over_within_seconds(
    primary: PostgresServer, settings: dict[str, str], start: Start
) -> None:
    with Proxy(primary.port) as silent:
        silent.stall()
        both = {"DB_HOST": "127.0.0.1,127.0.0.1", "DB_PORT": f"{silent.port},{primary.port}"}
        program = start(settings | both)
        listened_to(primary, program)


def test_of_several_hosts_a_primary_made_read_only_is_passed_over(hosts: Hosts, start: Start) -> None:
    program = start(hosts.settings(first=hosts.primary))
    listened_to(hosts.primary, program)
    hosts.standby.promote()
    hosts.primary.set("default_transaction_read_only", "on")
    hosts.primary.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", ROLE)
    listened_to(hosts.standby, program, 6)


@pytest.mark.parametrize("hosts_named", ["one", "several"])
def test_a_role_whose_transactions_are_read_only_can_listen(
    primary: PostgresServer, standby: PostgresServer, settings: dict[str, str], start: Start, hosts_named: str
) -> None:
    primary.execute(f"ALTER ROLE {ROLE} SET default_transaction_read_only = on")
    several = {"DB_HOST": "127.0.0.1,127.0.0.1", "DB_PORT": f"{standby.port},{primary.port}"}
    listened_to(primary, start(settings | (several if hosts_named == "several" else {})))


# What a snapshot is taken from.


def test_a_standby_that_may_lag_gives_no_snapshot(
    standby: PostgresServer,
    primary: PostgresServer,
    address: Proxy,
    settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    start_listener(settings | {"DB_PORT": str(primary.port)}).wait_until_aligned()
    address.redirect_to(standby.port)
    app = start_app(settings | {"SNAPSHOT_QUERY": IS_STANDBY}).wait_until_ready()
    with app.client(MATCH) as client:
        loaded = client.wait_for_initial_load()
        assert loaded["data"] is None, loaded
        app.wait_for_log("standby")


# A primary that is not the one it was.


def test_an_older_timeline_is_not_listened_to_again(
    primary: PostgresServer,
    standby: PostgresServer,
    address: Proxy,
    settings: dict[str, str],
    redis_place: RedisPlace,
    start_listener: StartListener,
) -> None:
    standby.promote()
    address.redirect_to(standby.port)
    listener = start_listener(settings).wait_until_aligned()
    begun = wait_until(lambda: epochs(redis_place))  # a begin is logged before it is appended
    address.redirect_to(primary.port)  # which nobody has told
    listener.wait_for_log("timeline", 6)
    hold_for(WITHOUT_A_PRIMARY_SECONDS, lambda: listener.running and epochs(redis_place) == begun)
    address.redirect_to(standby.port)
    listened_to(standby, listener, 6)
    listener.wait_until_aligned(2)
