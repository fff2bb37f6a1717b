"""The faults. Each function injects one and returns when it has ended; recovery may take longer."""

import shutil
import signal
from collections.abc import Callable
from contextlib import closing
from random import Random

import psycopg
import redis

from tests.chaos.pods import Pod
from tests.support.proxy import Proxy
from tests.support.servers import Servers

Wait = Callable[[float], None]  # waits for some seconds and asserts that everything else keeps running
DURATION_SECONDS = (1.0, 6.0)
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


def restart_redis_without_data(_pod: Pod, servers: Servers, rng: Random, wait: Wait) -> None:
    assert servers.redis
    servers.redis.kill()
    for path in (servers.embedded.data / "valkey").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    wait(rng.uniform(0, 2))
    servers.start_redis()


def restart_postgres(_pod: Pod, servers: Servers, rng: Random, wait: Wait) -> None:
    assert servers.postgres
    servers.postgres.signal(rng.choice((signal.SIGQUIT, signal.SIGKILL)))  # SIGQUIT: as `pg_ctl -m immediate`
    servers.postgres.exit_code(30)
    wait(rng.uniform(0, 2))
    servers.start_postgres()


def _cut(proxy: Proxy, rng: Random, wait: Wait) -> None:
    proxy.cut()
    wait(rng.uniform(*DURATION_SECONDS))
    proxy.resume()


def _stall(proxy: Proxy, rng: Random, wait: Wait) -> None:
    proxy.stall()
    wait(rng.uniform(*DURATION_SECONDS))
    proxy.resume()


RESTART_POSTGRES = "restart PostgreSQL"  # ends every session, so a gap is expected with any number of listeners
FAULTS: dict[str, Callable[[Pod, Servers, Random, Wait], None]] = {
    "kill -9": kill,
    "SIGTERM": sigterm,
    "SIGSTOP": freeze,
    "terminate": terminate_session,
    "FLUSHALL": flush_redis,
    "empty Redis": restart_redis_without_data,
    RESTART_POSTGRES: restart_postgres,
    "cut PostgreSQL": lambda pod, _, rng, wait: _cut(pod.postgres_proxy, rng, wait),
    "cut Redis": lambda pod, _, rng, wait: _cut(pod.redis_proxy, rng, wait),
    "stall PostgreSQL": lambda pod, _, rng, wait: _stall(pod.postgres_proxy, rng, wait),
    "stall Redis": lambda pod, _, rng, wait: _stall(pod.redis_proxy, rng, wait),
}
