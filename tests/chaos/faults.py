"""What goes wrong, one at a time; each has ended when its function returns, and what it hit may not have recovered."""

import shutil
import signal
from collections.abc import Callable
from contextlib import closing
from random import Random

import psycopg
import redis

from tests.chaos.pods import Pod
from tests.chaos.servers import ReplicatedServers
from tests.support.proxy import Proxy
from tests.support.servers import Servers

Hold = Callable[[float], None]  # waits so many seconds, and sees to it that everything else lives
HELD = (1.0, 6.0)
RESTARTED_AFTER = 1.0  # as supervisord does


def kill(pod: Pod, _servers: Servers, _rng: Random, hold: Hold) -> None:
    pod.process.kill()
    hold(RESTARTED_AFTER)
    pod.start()


def sigterm(pod: Pod, _servers: Servers, rng: Random, hold: Hold) -> None:
    code = pod.process.stop()
    assert code == 0, f"SIGTERM: exit code {code}"
    hold(rng.choice((0.0, RESTARTED_AFTER)))
    pod.start()


def freeze(pod: Pod, _servers: Servers, rng: Random, hold: Hold) -> None:
    pod.process.freeze()
    hold(rng.uniform(*HELD))
    pod.process.thaw()


def terminate(pod: Pod, servers: Servers, _rng: Random, _hold: Hold) -> None:
    with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            [f"notifymux-listener/{pod.name}"],
        )


def flush(_pod: Pod, servers: Servers, _rng: Random, _hold: Hold) -> None:
    with closing(redis.Redis.from_url(servers.embedded.redis_url)) as client:
        client.flushall()


def empty_redis(_pod: Pod, servers: Servers, rng: Random, hold: Hold) -> None:
    assert servers.redis
    servers.redis.kill()
    for path in (servers.embedded.data / "valkey").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    hold(rng.uniform(0, 2))
    servers.start_redis()


def restart_postgres(_pod: Pod, servers: Servers, rng: Random, hold: Hold) -> None:
    assert servers.postgres
    servers.postgres.signal(rng.choice((signal.SIGQUIT, signal.SIGKILL)))  # `pg_ctl -m immediate`, or worse
    servers.postgres.exit_code(30)
    hold(rng.uniform(0, 2))
    servers.start_postgres()


def stall_commits(_pod: Pod, servers: Servers, rng: Random, hold: Hold) -> None:
    with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        hold(rng.uniform(*HELD))
        connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        connection.execute("SELECT pg_reload_conf()")


def fail_over_postgres(_pod: Pod, servers: Servers, rng: Random, hold: Hold) -> None:
    assert isinstance(servers, ReplicatedServers)
    servers.fail_over(crash=rng.random() < 0.5)
    hold(rng.uniform(0, 6))
    servers.promote()


def _cut(proxy: Proxy, rng: Random, hold: Hold) -> None:
    proxy.cut()
    hold(rng.uniform(*HELD))
    proxy.resume()


def _stall(proxy: Proxy, rng: Random, hold: Hold) -> None:
    proxy.stall()
    hold(rng.uniform(*HELD))
    proxy.resume()


FAULTS: dict[str, Callable[[Pod, Servers, Random, Hold], None]] = {
    "kill -9": kill,
    "SIGTERM": sigterm,
    "SIGSTOP": freeze,
    "terminate": terminate,
    "FLUSHALL": flush,
    "empty Redis": empty_redis,
    "restart PostgreSQL": restart_postgres,
    "stalled commits": stall_commits,
    "PostgreSQL fail-over": fail_over_postgres,
    "cut PostgreSQL": lambda pod, _, rng, hold: _cut(pod.postgres, rng, hold),
    "cut Redis": lambda pod, _, rng, hold: _cut(pod.redis, rng, hold),
    "stall PostgreSQL": lambda pod, _, rng, hold: _stall(pod.postgres, rng, hold),
    "stall Redis": lambda pod, _, rng, hold: _stall(pod.redis, rng, hold),
}
BREAKS_EVERY_SESSION = {"restart PostgreSQL", "PostgreSQL fail-over"}  # so that a gap is right
BREAKS_NONE = {"stalled commits"}  # so that none is, however few listeners there are
