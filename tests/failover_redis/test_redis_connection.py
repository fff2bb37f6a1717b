"""The thread that makes the listener's one connection to Redis."""

from contextlib import suppress

import pytest
import redis

from listener import redis_connection
from listener.redis_connection import LastBeat, RedisConnection
from notifymux.redis_client import RedisAddress
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


def answers(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


def test_a_heartbeat_that_a_stranger_overwrote_does_not_end_the_thread(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_connection, "_PROBE_SECONDS", 0.02)
    server.call("HSET", "heartbeat", "beats", "no number")
    connection = RedisConnection(RedisAddress(server.url))
    connection.start(lambda: LastBeat("heartbeat", 1))
    client = redis.Redis(connection_pool=connection)
    wait_until(lambda: answers(client))
    wait_until(lambda: server.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0) > 2)
    server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait_until(lambda: answers(client))
