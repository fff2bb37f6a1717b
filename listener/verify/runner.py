"""Every check, in order."""

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import redis
from redis.exceptions import RedisError

from app.core.config import Settings
from app.core.redis_keys import RedisNames
from listener.verify import end_to_end as canary
from listener.verify import postgres_checks as postgres
from listener.verify import redis_checks
from listener.verify.result import Check, failed


def run_checks(settings: Settings, url: str, client: redis.Redis) -> Iterator[Check]:
    """Looks at both servers, and if both are there, sends the canary.

    Args:
        settings: whose setup is verified.
        url: PostgreSQL's connection string.
        client: a connection to Redis.
    """
    names, channels = RedisNames(settings.redis_namespace), settings.notify_channels
    workers = settings.web_concurrency if settings.use_redis_notifier else 0
    with ExitStack() as stack:
        reached, connection = postgres.reach(url, settings.pod_name)
        yield reached
        if connection:
            stack.callback(connection.close)
            yield from postgres.examine(connection, channels, workers)
        reached, info = redis_checks.reach(client, settings.redis_url.get_secret_value())
        yield reached
        if info is not None:
            yield from redis_checks.examine(client, names, info)
        if connection is None or info is None:
            yield failed("canary", "not sent", "mend the above first")
            return
        try:
            yield from canary.follow(connection, client, names, channels, workers_hear_redis=workers > 0)
        except psycopg.Error as error:
            yield postgres.fault("canary", error)
        except RedisError as error:
            yield redis_checks.fault("canary", error)
