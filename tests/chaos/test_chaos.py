"""The promises hold for real processes under faults: a few seconds in the short tier, minutes in the long tier.

`python -m tests.chaos` runs for any time.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random, randrange

import psutil
import pytest
import redis

from tests.chaos.absence import absence
from tests.chaos.environment import EVENTS_PER_SECOND, WRITERS, Environment
from tests.chaos.load import CHANNELS, CommitOrder, Writer, create_table
from tests.chaos.pod_update import PodUpdate
from tests.chaos.pods import Pod
from tests.chaos.redis_failover import KINDS, run
from tests.chaos.replicated_servers import ReplicatedServers
from tests.chaos.report import Report
from tests.chaos.source import SOURCES, WAL
from tests.support.output import print_line
from tests.support.redis_server import valkey_server
from tests.support.servers import Servers
from tests.support.waiting import hold_for, wait_until


@pytest.fixture
def seed() -> int:
    """The seed of faults and load, which pytest shows when a test fails."""
    number = randrange(1 << 31)
    print_line(f"seed {number}")
    return number


def assert_kept(report: Report) -> None:
    """Assert that no promise was broken."""
    if report.violations:
        print_line(report.log)
    assert report.violations == []
    assert report.committed > 0


OUT_OF_MEMORY = "used memory > 'maxmemory'"
FAST_FAULTS = ["kill -9", "FLUSHALL", "SIGTERM", "terminate"]


@pytest.mark.parametrize(
    ("listeners", "seconds", "faults"),
    [
        (2, 5, FAST_FAULTS),
        (1, 0, ["kill -9"]),
    ],
)
def test_no_promise_is_broken_under_faults(
    servers: Servers, tmp_path: Path, seed: int, listeners: int, seconds: float, faults: list[str]
) -> None:
    with Environment(servers, tmp_path, listeners, seed, verbose=True) as environment:
        assert_kept(environment.run(seconds, faults))


@pytest.fixture
def logical_servers(template: Path, tmp_path: Path) -> Iterator[Servers]:
    """As `servers`, with a PostgreSQL that SOURCE=wal can read."""
    with Servers(tmp_path / "own", template, {"wal_level": "logical"}) as servers:
        yield servers


def test_with_the_wal_a_lone_listener_that_is_killed_or_terminated_is_no_gap(
    logical_servers: Servers, tmp_path: Path, seed: int
) -> None:
    with Environment(logical_servers, tmp_path, 1, seed, source=WAL, verbose=True) as environment:
        report = environment.run(3, ["kill -9", "terminate", "reader terminated"])
        assert_kept(report)
        assert report.gaps.total() == 0


@pytest.mark.long
def test_with_the_wal_a_lone_listener_that_is_away_while_postgresql_crashes_is_no_gap(
    logical_servers: Servers, tmp_path: Path, seed: int
) -> None:
    report = absence(logical_servers, tmp_path, seed, 6)
    assert_kept(report)
    assert report.gaps.total() == 0


@pytest.mark.long
def test_with_the_wal_a_failover_is_one_gap_and_nothing_is_lost_or_repeated_after_it(
    template: Path, tmp_path: Path, seed: int
) -> None:
    with (
        ReplicatedServers(tmp_path / "replicated", template, is_logical=True) as servers,
        Environment(servers, tmp_path, 2, seed, source=WAL, verbose=True) as environment,
    ):
        report = environment.run(0, ["PostgreSQL fail-over"])
        assert_kept(report)
        assert report.gaps.total() == 1


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("source", "listeners", "seconds"), [("notify", 3, 80), ("notify", 1, 80), ("wal", 2, 40)])
def test_no_promise_is_broken_while_servers_stall_and_fail_over_too(
    template: Path, tmp_path: Path, seed: int, source: str, listeners: int, seconds: float
) -> None:
    with (
        ReplicatedServers(tmp_path / "replicated", template, is_logical=source == "wal") as servers,
        Environment(servers, tmp_path, listeners, seed, source=SOURCES[source], verbose=True) as environment,
    ):
        assert_kept(environment.run(seconds))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_with_listeners_in_two_pods_a_primary_of_redis_that_is_killed_costs_nothing_but_delay(
    database: str, tmp_path: Path, kind: str
) -> None:
    with KINDS[kind](tmp_path, program=valkey_server()) as group:
        found = run(group, 2, 1, database, tmp_path)
    print_line(found.row(kind))
    assert found.is_flawless, "\n".join([*found.deliveries.errors, found.log])
    [parts] = found.fail_overs
    assert parts["promotion to events"] < 6  # 2 s, on a machine that is three times slower


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_rolling_update_loses_and_repeats_nothing(servers: Servers, tmp_path: Path, seed: int) -> None:
    seconds = 6
    with PodUpdate(servers, tmp_path, 300, seed, {"DRAIN_SECONDS": str(seconds)}) as update:
        report = update.run()
    found = report.deliveries
    assert found.errors == [], report.log
    assert found.lost == found.repeated == found.out_of_order == found.resyncs == 0, report.log
    assert found.received > 300
    assert set(report.codes) == {1012}, "no connection was lost in any other way"
    assert len(report.pods) == 3
    for pod in report.pods:
        assert pod.clients > 50, "they spread over the pods"
        # What comes while the clients' own process pauses, on a busy machine, seems to come at once.
        assert pod.share_back <= 0.3 + report.longest_pause / seconds, "they come back one after another"
    assert "Traceback" not in report.log


@pytest.mark.long
def test_a_rolling_update_to_other_channels_is_one_announced_gap_that_the_log_explains(
    servers: Servers, tmp_path: Path, seed: int
) -> None:
    with Environment(servers, tmp_path, 3, seed) as environment:
        environment.rolling_update({"NOTIFY_CHANNELS": ",".join([*CHANNELS, "one_more_change"])}, aligned=False)
        log = environment.pods[0].log
        report = environment.finish()
        assert report.deliveries.lost == report.deliveries.repeated == report.deliveries.out_of_order == 0, report.log
        assert report.deliveries.errors == []
        assert report.gaps.total() == 1, report.log
        assert report.max_listen_rows == 1
    assert log.count("stays passive") == 1
    assert "the listener at work has other NOTIFY_CHANNELS" in log


@pytest.mark.long
def test_three_listeners_cost_redis_less_than_1_3_times_the_commands_of_one(
    servers: Servers, template: Path, tmp_path: Path, seed: int
) -> None:
    """One listener and three listeners run side by side under the same load, each group with its own Redis."""
    url = servers.embedded.database_url
    create_table(url)
    rng = Random(seed)
    with ExitStack() as stack:
        second = Servers(tmp_path / "second", template)
        stack.callback(second.end)
        second.start_redis()
        groups = {"one": (servers, 1), "three": (second, 3)}
        pods: list[Pod] = []
        for n in range(1, 4):
            for name, (group, count) in groups.items():
                if n <= count:
                    pod = Pod(f"{name}-{n}", tmp_path / f"{name}-{n}", servers, {"REDIS_URL": group.embedded.redis_url})
                    pods.append(stack.enter_context(pod))
            if n in (1, 3):  # the first is aligned before the others start, so that it starts the epoch
                for pod in pods:
                    pod.wait_until_aligned()
        order = stack.enter_context(CommitOrder(url))
        for n in range(1, WRITERS + 1):
            stack.enter_context(Writer(n, url, order, EVENTS_PER_SECOND / WRITERS, Random(rng.random())))
        hold_for(1, lambda: True)
        before = {name: commands(group) for name, (group, _) in groups.items()}
        hold_for(10, lambda: all(pod.process.running for pod in pods))
        spent = {
            name: {kind: count - before[name].get(kind, 0) for kind, count in commands(group).items()}
            for name, (group, _) in groups.items()
        }
    for kind in sorted({kind for counts in spent.values() for kind in counts}):
        print_line(f"{kind:10}" + "".join(f"{counts.get(kind, 0):8}" for counts in spent.values()))
    one, three = spent["one"], spent["three"]
    assert one["xadd"] > 8 * EVENTS_PER_SECOND
    assert abs(one["xadd"] - three["xadd"]) < 2 * EVENTS_PER_SECOND  # both had the same load
    for kind in ("processed", "called"):
        ratio = three[kind] / one[kind]
        print_line(f"commands {kind}: {one[kind]} with one listener, {three[kind]} with three, {ratio:.2f} times")
        # On a busy machine events come in bursts, each of which is one append. What standbys ask is as much as ever.
        unbatched = max(one[kind], one["xadd"])
        assert three[kind] - one[kind] < 0.3 * unbatched


def commands(servers: Servers) -> dict[str, int]:
    """Return the number of calls by command; `called` has those of clients, `processed` also those of scripts."""
    with closing(redis.Redis.from_url(servers.embedded.redis_url)) as client:
        stats = client.info("commandstats")
        counts = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
        within = sum(counts.get(name, 0) for name in ("xadd", "publish"))
        called = sum(counts.values()) - within - counts.get("evalsha", 0)  # each script reads the head once
        return counts | {"called": called, "processed": int(client.info("stats")["total_commands_processed"])}


@pytest.mark.long
def test_redis_at_its_maxmemory_is_an_outage_that_is_logged_once(servers: Servers, tmp_path: Path, seed: int) -> None:
    with (
        Environment(servers, tmp_path, 1, seed) as environment,
        closing(redis.Redis.from_url(servers.embedded.redis_url)) as client,
    ):
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 50_000)
        [pod] = environment.pods
        wait_until(lambda: OUT_OF_MEMORY in pod.log, 20, "the listener logs it")
        # Until now some writes fitted in between; from now on none does.
        client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
        before = len(pod.process.lines)
        environment.run_load(4)
        client.config_set("maxmemory", 0)
        environment.wait_until_caught_up()
        report = environment.finish()
        assert_kept(report)
    assert report.gaps.total() == 0
    warnings = [line.partition("WARNING ")[2] for line in pod.process.lines[before:] if OUT_OF_MEMORY in line]
    assert len(warnings) == len(set(warnings)) <= 2, pod.log  # one for events, one for heartbeats
    assert "Redis is back" in pod.process.lines[-2], pod.log  # before "stopped"


@pytest.mark.long
def test_a_worker_that_falls_behind_the_stream_announces_a_gap_only_to_its_own_clients(
    servers: Servers, tmp_path: Path, seed: int
) -> None:
    with (
        Environment(servers, tmp_path, 2, seed, settings={"STREAM_MAXLEN": "1000"}) as environment,
        closing(redis.Redis.from_url(servers.embedded.redis_url)) as client,
    ):
        environment.run_load(3)
        slow = environment.clients[-1].worker  # which is not fed
        worker = psutil.Process(slow)
        worker.suspend()
        try:
            ports = {connection.laddr.port for connection in worker.net_connections("tcp")}
            subscriptions = [
                subscriber["addr"]
                for subscriber in client.client_list(_type="pubsub")
                if int(subscriber["addr"].rpartition(":")[2]) in ports
            ]
            assert len(subscriptions) == 1
            client.client_kill_filter(addr=subscriptions[0])
            environment.run_load(6)
        finally:
            worker.resume()
        affected = [each for each in environment.clients if each.worker == slow]
        wait_until(lambda: all(each.resyncs() for each in affected))
        environment.wait_until_caught_up()
        report = environment.finish()
        assert report.deliveries.lost == report.deliveries.repeated == report.deliveries.out_of_order == 0
        assert report.deliveries.announced > 0
        assert [each.resyncs() for each in environment.clients] == [each in affected for each in environment.clients]
