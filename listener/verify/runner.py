"""Runs every check, in order."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import psycopg
import redis
from psycopg.pq import TransactionStatus
from redis.exceptions import RedisError

from app.core.config import Settings
from listener.sequencer.process_state import fingerprint
from listener.verify import end_to_end, postgres_checks, query_checks, redis_checks, settings_checks, slot_checks
from listener.verify.result import Check, failed
from notifymux.redis_keys import RedisNames
from notifymux.redis_url import parse_redis_url


class Options(NamedTuple):
    """What is verified besides: `sample` is for whom queries are tried, `send` tries the team's own channels."""

    sample: query_checks.Sample = query_checks.Sample()
    send: bool = False


def run(settings: Settings, options: Options, url: str, client: redis.Redis) -> Iterator[Check]:
    """Check the settings and both servers, and if both are reachable, trace a canary.

    Args:
        settings: the setup to verify.
        options: what the command line says.
        url: PostgreSQL's connection string.
        client: a connection to Redis.
    """
    names, channels = RedisNames(settings.redis_namespace), settings.notify_channels
    workers = settings.web_concurrency if settings.use_redis_notifier else 0
    yield settings_checks.names()
    yield settings_checks.tokens(settings)
    with ExitStack() as stack:
        check, connection = postgres_checks.connect(url, settings.pod_name)
        yield check
        if connection:
            stack.callback(connection.close)
            if settings.source == "wal":
                yield from slot_checks.run_checks(connection, settings, url)
            else:
                yield from postgres_checks.run_checks(connection, channels, workers)
            if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                connection = None  # it does not answer
            else:
                yield from query_checks.run_checks(settings, url, options.sample)
        redis_url = settings.redis_url.get_secret_value()
        check, info = redis_checks.connect(client, redis_url)
        yield check
        if info is not None:
            is_cluster = parse_redis_url(redis_url).is_cluster
            yield from redis_checks.run_checks(client, names, info, is_cluster=is_cluster)
        if connection is None or info is None:
            yield failed("canary", "not sent", "fix what failed above first")
            return
        try:
            setup = end_to_end.Setup(
                channels, fingerprint(settings.db_name, channels), settings.source, workers_use_redis=workers > 0
            )
            yield from end_to_end.trace_canary(connection, client, names, setup, send=options.send)
        except psycopg.Error as error:
            yield postgres_checks.failed_check("canary", error)
        except RedisError as error:
            yield redis_checks.failed_check("canary", error)
