"""The faults. Each function injects one and returns when it has ended; recovery may take longer."""

import signal
from collections.abc import Callable
from contextlib import closing
from random import Random
from typing import NamedTuple

import psutil
import psycopg
import redis

from tests.chaos.pods import Pod
from tests.chaos.replicated_servers import ReplicatedServers
from tests.support.proxy import Proxy
from tests.support.servers import Servers

DURATION_SECONDS = (1.0, 6.0)
STALL_SECONDS = (4.5, 8.0)  # longer than any timeout that a session's own notification could have
RESTART_DELAY_SECONDS = 1.0  # as supervisord's
SLOW_BYTES_PER_SECOND = 40_000  # less than the load


class Target(NamedTuple):
    """What a fault may break."""

    pod: Pod  # with a listener
    worker: psutil.Process
    servers: Servers
    rng: Random
    wait: Callable[[float], None]  # waits for some seconds and asserts that everything else keeps running

    def last(self) -> None:
        """Wait as long as such faults last."""
        self.wait(self.rng.uniform(*DURATION_SECONDS))


def kill(target: Target) -> None:
    target.pod.process.kill()
    target.wait(RESTART_DELAY_SECONDS)
    target.pod.start()


def sigterm(target: Target) -> None:
    code = target.pod.process.stop()
    assert code == 0, f"SIGTERM: exit code {code}"
    target.wait(target.rng.choice((0.0, RESTART_DELAY_SECONDS)))
    target.pod.start()


def freeze(target: Target) -> None:
    target.pod.process.freeze()
    target.last()
    target.pod.process.thaw()


def terminate_session(target: Target) -> None:
    with closing(psycopg.connect(target.servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            [f"notifymux-listener/{target.pod.name}"],
        )


def flush_redis(target: Target) -> None:
    with closing(redis.Redis.from_url(target.servers.embedded.redis_url)) as client:
        client.flushall()


def restart_redis_without_data(target: Target) -> None:
    target.servers.restart_redis_without_data()


def freeze_redis(target: Target) -> None:
    """Redis answers nobody."""
    process = target.servers.redis_process
    process.freeze()
    target.last()
    process.thaw()


def kill_while_redis_is_frozen(target: Target) -> None:
    """What the listener has fed to its workers meanwhile, it appends never."""
    process = target.servers.redis_process
    process.freeze()
    try:
        target.wait(target.rng.uniform(0.5, 1.5))
        target.pod.process.kill()
        target.wait(RESTART_DELAY_SECONDS)
    finally:
        process.thaw()
    target.pod.start()


def slow_redis(target: Target) -> None:
    target.pod.redis_proxy.throttle(SLOW_BYTES_PER_SECOND)
    target.last()
    target.pod.redis_proxy.resume()


def restart_postgres(target: Target) -> None:
    postgres = target.servers.postgres
    assert postgres
    postgres.signal(target.rng.choice((signal.SIGQUIT, signal.SIGKILL)))  # SIGQUIT: as `pg_ctl -m immediate`
    postgres.exit_code(30)
    target.wait(target.rng.uniform(0, 2))
    target.servers.start_postgres()


def stall_commits(target: Target) -> None:
    """Every commit that notifies waits for a standby that does not exist, or for the one that waits for it."""
    with closing(psycopg.connect(target.servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        target.wait(target.rng.uniform(*STALL_SECONDS))
        connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        connection.execute("SELECT pg_reload_conf()")


def fail_over_postgres(target: Target) -> None:
    """For a while the address leads to a standby, which is promoted then; the fault ends with the promotion."""
    servers = target.servers
    assert isinstance(servers, ReplicatedServers)
    servers.lose_postgres_primary(crash=target.rng.random() < 0.5)
    target.last()
    servers.promote_postgres_standby()


def fail_over_redis(target: Target) -> None:
    """The connected primary becomes a replica without a cut, and the address leads to the new primary."""
    assert isinstance(target.servers, ReplicatedServers)
    target.servers.fail_over_redis(target.rng)


def kill_worker(target: Target) -> None:
    """Its clients connect again, and resume."""
    target.worker.kill()


def freeze_worker(target: Target) -> None:
    target.worker.suspend()
    target.last()
    target.worker.resume()


def _cut(proxy: Proxy, target: Target) -> None:
    proxy.cut()
    target.last()
    proxy.resume()


def _stall(proxy: Proxy, target: Target) -> None:
    proxy.stall()
    target.last()
    proxy.resume()


FAULTS: dict[str, Callable[[Target], None]] = {
    "kill -9": kill,
    "SIGTERM": sigterm,
    "SIGSTOP": freeze,
    "terminate": terminate_session,
    "FLUSHALL": flush_redis,
    "empty Redis": restart_redis_without_data,
    "frozen Redis": freeze_redis,
    "frozen Redis, kill -9": kill_while_redis_is_frozen,
    "slow Redis": slow_redis,
    "restart PostgreSQL": restart_postgres,
    "stalled commits": stall_commits,
    "PostgreSQL fail-over": fail_over_postgres,
    "Redis fail-over": fail_over_redis,
    "cut PostgreSQL": lambda target: _cut(target.pod.postgres_proxy, target),
    "cut Redis": lambda target: _cut(target.pod.redis_proxy, target),
    "stall PostgreSQL": lambda target: _stall(target.pod.postgres_proxy, target),
    "stall Redis": lambda target: _stall(target.pod.redis_proxy, target),
    "worker kill -9": kill_worker,
    "worker SIGSTOP": freeze_worker,
}
# These end every session, so one gap is expected with any number of listeners.
END_EVERY_SESSION = {"restart PostgreSQL", "PostgreSQL fail-over"}
# These end none, so no gap is expected, however few listeners there are.
END_NO_SESSION = {
    "stalled commits",
    "Redis fail-over",
    "FLUSHALL",
    "empty Redis",
    "frozen Redis",
    "slow Redis",
    "cut Redis",
    "stall Redis",
    "worker kill -9",
    "worker SIGSTOP",
}
