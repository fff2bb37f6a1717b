"""The faults; `source.py` names those of each source.

Each function injects one and returns when it has ended; recovery may take longer.
"""

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
from tests.support.waiting import wait_until

DURATION_SECONDS = (1.0, 6.0)
FROZEN_SECONDS = (6.5, 9.0)  # longer than a reader of the slot may show nothing
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


def stay_away(target: Target, seconds: float) -> None:
    """A listener is killed and stays away; meanwhile PostgreSQL crashes, and is back before it."""
    target.pod.process.kill()
    target.wait(seconds / 2)
    crash_postgres(target, signal.SIGQUIT)
    target.servers.start_postgres()
    target.wait(seconds / 2)
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


def freeze_for_long(target: Target) -> None:
    """Where it reads the slot, another listener ends its sessions and takes over."""
    target.pod.process.freeze()
    target.wait(target.rng.uniform(*FROZEN_SECONDS))
    target.pod.process.thaw()


def terminate_session(target: Target) -> None:
    with closing(psycopg.connect(target.servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            [f"notifymux-listener/{target.pod.name}"],
        )


def terminate_reader(target: Target) -> None:
    """The connection that reads the slot ends; the listener's other session lives on."""
    with closing(psycopg.connect(target.servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'notifymux'"
        )


def invalidate_slot(target: Target) -> None:
    """PostgreSQL gives up every slot: an open transaction keeps them back, and more WAL follows than they may keep."""
    url = target.servers.embedded.database_url
    with closing(psycopg.connect(url)) as holding, closing(psycopg.connect(url, autocommit=True)) as connection:
        holding.execute("SELECT pg_current_xact_id()")
        connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        connection.execute("SELECT pg_reload_conf()")

        def is_lost() -> bool:
            connection.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1000000)), pg_switch_wal()")
            connection.execute("CHECKPOINT")
            row = connection.execute("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'notifymux'")
            return row.fetchone() in {None, ("lost",)}

        wait_until(is_lost, what="PostgreSQL gives up the slot")
        connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        connection.execute("SELECT pg_reload_conf()")


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
    crash_postgres(target, target.rng.choice((signal.SIGQUIT, signal.SIGKILL)))
    target.wait(target.rng.uniform(0, 2))
    target.servers.start_postgres()


def crash_postgres(target: Target, number: int) -> None:
    """SIGQUIT: as `pg_ctl stop -m immediate` does."""
    postgres = target.servers.postgres
    assert postgres
    postgres.signal(number)
    postgres.exit_code(30)


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


def cut_postgres(target: Target) -> None:
    _cut(target.pod.postgres_proxy, target)


def cut_redis(target: Target) -> None:
    _cut(target.pod.redis_proxy, target)


def stall_postgres(target: Target) -> None:
    _stall(target.pod.postgres_proxy, target)


def stall_redis(target: Target) -> None:
    _stall(target.pod.redis_proxy, target)


def _cut(proxy: Proxy, target: Target) -> None:
    proxy.cut()
    target.last()
    proxy.resume()


def _stall(proxy: Proxy, target: Target) -> None:
    proxy.stall()
    target.last()
    proxy.resume()
