"""The promises, on real processes: a short form by default, the long one in the long tier.

`python -m tests.chaos --minutes 10` is longer still.
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random, randrange

import psutil
import pytest
import redis

from tests.chaos.environment import RATE, WRITERS, Environment, Report, say
from tests.chaos.faults import FAULTS
from tests.chaos.load import CHANNELS, Order, Writer, make_table
from tests.chaos.pods import Pod
from tests.support.servers import Servers
from tests.support.waiting import hold_for, wait_until


@pytest.fixture
def seed() -> int:
    """Of faults and load; printed, and shown where a test fails."""
    number = randrange(1 << 31)
    say(f"seed {number}")
    return number


def kept(report: Report) -> Report:
    """Asserts that no promise was broken."""
    if report.broken:
        say(report.log)
    assert report.broken == []
    assert report.committed > 0
    return report


def fight(arena: Environment, seconds: float, kinds: Sequence[str]) -> Report:
    with arena:
        try:
            arena.run(seconds, kinds)
            return kept(arena.finish())
        except AssertionError:
            say("\n".join(pod.log for pod in arena.pods))
            raise


ALL = list(FAULTS)
FULL = "used memory > 'maxmemory'"
MANY = ["kill -9", "FLUSHALL", "SIGTERM", "terminate"]


@pytest.mark.parametrize(
    ("listeners", "seconds", "kinds"),
    [
        (2, 5, MANY),
        (1, 0, ["kill -9"]),
        pytest.param(3, 60, ALL, marks=[pytest.mark.long, pytest.mark.timeout(180)]),
        pytest.param(1, 45, ALL, marks=[pytest.mark.long, pytest.mark.timeout(180)]),
    ],
)
def test_faults_in_turn(
    servers: Servers, tmp_path: Path, seed: int, listeners: int, seconds: float, kinds: list[str]
) -> None:
    fight(Environment(servers, tmp_path, listeners, seed, verbose=True), seconds, kinds)


@pytest.mark.long
def test_a_rolling_update_loses_and_repeats_nothing(servers: Servers, tmp_path: Path, seed: int) -> None:
    with Environment(servers, tmp_path, 3, seed) as arena:
        arena.roll()
        report = kept(arena.finish())
        assert report.gaps.total() == 0


@pytest.mark.long
def test_a_roll_to_other_channels_is_one_announced_gap_and_the_log_explains_it(
    servers: Servers, tmp_path: Path, seed: int
) -> None:
    with Environment(servers, tmp_path, 3, seed) as arena:
        arena.roll({"NOTIFY_CHANNELS": ",".join([*CHANNELS, "one_more_change"])}, aligned=False)
        log = arena.pods[0].log
        report = arena.finish()
        assert (report.verdict.lost, report.verdict.repeated, report.verdict.disordered) == (0, 0, 0), report.log
        assert report.verdict.wrong == []
        assert report.gaps.total() == 1, report.log
        assert report.rows == 1
    assert log.count("stays passive") == 1
    assert "the listener at work has other NOTIFY_CHANNELS" in log


@pytest.mark.long
def test_three_listeners_cost_redis_less_than_1_3_times_the_commands_of_one(
    servers: Servers, template: Path, tmp_path: Path, seed: int
) -> None:
    """Side by side: one PostgreSQL and one load, a Redis for one listener and another for three."""
    url = servers.embedded.database_url
    make_table(url)
    rng = Random(seed)
    with ExitStack() as stack:
        second = Servers(tmp_path / "second", template)
        stack.callback(second.end)
        second.start_redis()
        places = {"one": (servers, 1), "three": (second, 3)}
        pods: list[Pod] = []
        for n in range(1, 4):
            for name, (place, count) in places.items():
                if n <= count:
                    pod = Pod(f"{name}-{n}", tmp_path, servers, {"REDIS_URL": place.embedded.redis_url})
                    pods.append(stack.enter_context(pod))
            if n in (1, 3):  # the others needn't find out who is first
                for pod in pods:
                    pod.aligned()
        order = stack.enter_context(Order(url))
        for n in range(1, WRITERS + 1):
            stack.enter_context(Writer(n, url, order, RATE / WRITERS, Random(rng.random())))
        hold_for(1, lambda: True)
        before = {name: commands(place) for name, (place, _) in places.items()}
        hold_for(10, lambda: all(pod.process.running for pod in pods))
        spent = {
            name: {kind: count - before[name].get(kind, 0) for kind, count in commands(place).items()}
            for name, (place, _) in places.items()
        }
    for kind in sorted({kind for counts in spent.values() for kind in counts}):
        say(f"{kind:10}" + "".join(f"{counts.get(kind, 0):8}" for counts in spent.values()))
    one, three = spent["one"], spent["three"]
    assert one["xadd"] > 8 * RATE
    assert abs(one["xadd"] - three["xadd"]) < 2 * RATE  # both saw the same load
    for kind in ("processed", "called"):
        ratio = three[kind] / one[kind]
        say(f"commands {kind}: {one[kind]} with one listener, {three[kind]} with three, {ratio:.2f} times")
        assert ratio < 1.3


def commands(servers: Servers) -> dict[str, int]:
    """How often each command ran; `called` counts what clients sent, `processed` also what scripts did."""
    with closing(redis.Redis.from_url(servers.embedded.redis_url)) as client:
        stats = client.info("commandstats")
        counts = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
        within = sum(counts.get(name, 0) for name in ("xadd", "publish"))
        called = sum(counts.values()) - within - counts.get("evalsha", 0)  # each script reads the head once
        return counts | {"called": called, "processed": int(client.info("stats")["total_commands_processed"])}


@pytest.mark.long
def test_redis_at_its_maxmemory_is_waited_out_and_said_once(servers: Servers, tmp_path: Path, seed: int) -> None:
    with (
        Environment(servers, tmp_path, 1, seed) as arena,
        closing(redis.Redis.from_url(servers.embedded.redis_url)) as client,
    ):
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 50_000)
        [pod] = arena.pods
        wait_until(lambda: FULL in pod.log, 20, "the listener says so")
        client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)  # now nothing more fits now and then
        before = len(pod.process.lines)
        arena.hold(4)
        client.config_set("maxmemory", 0)
        arena.caught_up()
        report = kept(arena.finish())
    assert report.gaps.total() == 0
    said = [line.partition("WARNING ")[2] for line in pod.process.lines[before:] if FULL in line]
    assert len(said) == len(set(said)) <= 2, pod.log  # one for events, one for heartbeats
    assert "Redis is back" in pod.process.lines[-2], pod.log  # before "stopped"


@pytest.mark.long
def test_a_worker_too_slow_for_the_stream_announces_a_gap_to_its_own_clients_only(
    servers: Servers, tmp_path: Path, seed: int
) -> None:
    with (
        Environment(servers, tmp_path, 2, seed, settings={"STREAM_MAXLEN": "1000"}) as arena,
        closing(redis.Redis.from_url(servers.embedded.redis_url)) as client,
    ):
        arena.hold(3)
        slow = arena.witnesses[0].worker
        worker = psutil.Process(slow)
        worker.suspend()
        try:
            ports = {connection.laddr.port for connection in worker.net_connections("tcp")}
            cut = [
                subscriber["addr"]
                for subscriber in client.client_list(_type="pubsub")
                if int(subscriber["addr"].rpartition(":")[2]) in ports
            ]
            assert len(cut) == 1
            client.client_kill_filter(addr=cut[0])
            arena.hold(6)
        finally:
            worker.resume()
        told = [witness for witness in arena.witnesses if witness.worker == slow]
        wait_until(lambda: all(any(seen.token is None for seen in list(witness.seen)) for witness in told))
        arena.caught_up()
        report = arena.finish()
        assert (report.verdict.lost, report.verdict.repeated, report.verdict.disordered) == (0, 0, 0)
        assert report.verdict.announced > 0
        others = [witness for witness in arena.witnesses if witness.worker != slow]
        assert all(seen.token for witness in others for seen in witness.seen)
        assert [sum(seen.token is None for seen in witness.seen) for witness in told] == [1] * len(told)
