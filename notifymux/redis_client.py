"""Connections to Redis, synchronous and asynchronous.

redis-py's own retries are off: a call fails within seconds, and the caller decides whether to repeat it, because a
repeated append is harmless and a repeated publish is not.
"""

import re
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff

TIMEOUT_SECONDS = 2.0  # for connecting, and for each answer


def sync_client(url: str) -> redis.Redis:
    """Return a client for a program without an event loop. It connects at its first command."""
    return redis.Redis.from_url(url, retry=redis.retry.Retry(NoBackoff(), 0), **_options())


def async_client(url: str, **options: Any) -> redis.asyncio.Redis:
    """Return a client for an event loop. It connects at its first command.

    `options` are passed to redis-py's connections.
    """
    retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
    return redis.asyncio.Redis.from_url(url, retry=retry, **_options(), **options)


def _options() -> dict[str, Any]:
    return {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS, "socket_keepalive": True}


def describe_redis(url: str) -> str:
    """Return a Redis URL without user, password and options, for log lines and pages."""
    without_query = url.partition("?")[0]
    return re.sub(r"//[^/]*@", "//", without_query)
