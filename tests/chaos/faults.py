"""The faults. Each function injects one and returns when it has ended; recovery may take longer."""

import signal
from collections.abc import Callable
from contextlib import closing
from random import Random

import psycopg
import redis

from tests.chaos.pods import Pod
from tests.chaos.replicated_servers import ReplicatedServers
from tests.support.proxy import Proxy
from tests.support.servers import Servers

Wait = Callable[[float], None]  # waits for some seconds and asserts that everything else keeps running
DURATION_SECONDS = (1.0, 6.0)
STALL_SECONDS = (4.5, 8.0)  # longer than any timeout that a session's own notification could have
RESTART_DELAY_SECONDS = 1.0  # as supervisord's


def kill(pod: Pod, _servers: Servers, _rng: Random, wait: Wait) -> None:
    pod.process.kill()
    wait(RESTART_DELAY_SECONDS)
    pod.start()


def sigterm(pod: Pod, _servers: Servers, rng: Random, wait: Wait) -> None:
    code = pod.process.stop()
    assert code == 0, f"SIGTERM: exit code {code}"
    wait(rng.choice((0.0, RESTART_DELAY_SECONDS)))
    pod.start()


def freeze(pod: Pod, _servers: Servers, rng: Random, wait: Wait) -> None:
    pod.process.freeze()
    wait(rng.uniform(*DURATION_SECONDS))
    pod.process.thaw()


def terminate_session(pod: Pod, servers: Servers, _rng: Random, _wait: Wait) -> None:
    with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            [f"notifymux-listener/{pod.name}"],
        )


def flush_redis(_pod: Pod, servers: Servers, _rng: Random, _wait: Wait) -> None:
    with closing(redis.Redis.from_url(servers.embedded.redis_url)) as client:
        client.flushall()


def restart_redis_without_data(_pod: Pod, servers: Servers, _rng: Random, _wait: Wait) -> None:
    servers.restart_redis_without_data()


def restart_postgres(_pod: Pod, servers: Servers, rng: Random, wait: Wait) -> None:
    assert servers.postgres
    servers.postgres.signal(rng.choice((signal.SIGQUIT, signal.SIGKILL)))  # SIGQUIT: as `pg_ctl -m immediate`
    servers.postgres.exit_code(30)
    wait(rng.uniform(0, 2))
    servers.start_postgres()


def stall_commits(_pod: Pod, servers: Servers, rng: Random, wait: Wait) -> None:
    """Every commit that notifies waits for a standby that does not exist, or for the one that waits for it."""
    with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        wait(rng.uniform(*STALL_SECONDS))
        connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        connection.execute("SELECT pg_reload_conf()")


def fail_over_postgres(_pod: Pod, servers: Servers, rng: Random, wait: Wait) -> None:
    """For a while the address leads to a standby, which is promoted then; the fault ends with the promotion."""
    assert isinstance(servers, ReplicatedServers)
    servers.lose_postgres_primary(crash=rng.random() < 0.5)
    wait(rng.uniform(*DURATION_SECONDS))
    servers.promote_postgres_standby()


def fail_over_redis(_pod: Pod, servers: Servers, rng: Random, _wait: Wait) -> None:
    """The connected primary becomes a replica without a cut, and the address leads to the new primary."""
    assert isinstance(servers, ReplicatedServers)
    servers.fail_over_redis(rng)


def _cut(proxy: Proxy, rng: Random, wait: Wait) -> None:
    proxy.cut()
    wait(rng.uniform(*DURATION_SECONDS))
    proxy.resume()


def _stall(proxy: Proxy, rng: Random, wait: Wait) -> None:
    proxy.stall()
    wait(rng.uniform(*DURATION_SECONDS))
    proxy.resume()


FAULTS: dict[str, Callable[[Pod, Servers, Random, Wait], None]] = {
    "kill -9": kill,
    "SIGTERM": sigterm,
    "SIGSTOP": freeze,
    "terminate": terminate_session,
    "FLUSHALL": flush_redis,
    "empty Redis": restart_redis_without_data,
    "restart PostgreSQL": restart_postgres,
    "stalled commits": stall_commits,
    "PostgreSQL fail-over": fail_over_postgres,
    "Redis fail-over": fail_over_redis,
    "cut PostgreSQL": lambda pod, _, rng, wait: _cut(pod.postgres_proxy, rng, wait),
    "cut Redis": lambda pod, _, rng, wait: _cut(pod.redis_proxy, rng, wait),
    "stall PostgreSQL": lambda pod, _, rng, wait: _stall(pod.postgres_proxy, rng, wait),
    "stall Redis": lambda pod, _, rng, wait: _stall(pod.redis_proxy, rng, wait),
}
# These end every session, so one gap is expected with any number of listeners.
END_EVERY_SESSION = {"restart PostgreSQL", "PostgreSQL fail-over"}
# These end none, so no gap is expected, however few listeners there are.
END_NO_SESSION = {"stalled commits", "Redis fail-over", "FLUSHALL", "empty Redis", "cut Redis", "stall Redis"}
