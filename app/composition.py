"""The composition root of a worker: settings become an ASGI application, which is `app.main:app`."""

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

from starlette.applications import Starlette

from app.core.config import Settings
from app.core.operator_errors import OperatorError
from app.core.postgres import database_url, describe_server, url_without_password
from app.core.query_files import Queries
from app.core.redis_address import redis_address
from app.core.settings_sources import servers_given
from app.monitoring.status import Status, WorkerInfo
from app.monitoring.worker_metrics import WorkerMetrics
from app.monitoring.worker_registry import WorkerRegistry
from app.web.access_control import AccessControl
from app.web.admin_routes import AdminRoutes
from app.web.application import Task, application
from app.web.client_routes import ClientRoutes
from app.web.connection_limit import ConnectionLimit
from app.web.open_files import room_for_clients, room_for_others
from app.web.tokens import Tokens
from app.websocket_manager import MatchDataWebSocketManager
from notifymux.redis_client import RedisAddress, async_client, describe_redis
from notifymux.redis_keys import RedisNames


def compose(settings: Settings, queries: Queries | None = None) -> Starlette:
    """Return the application for these settings.

    Raises:
        OperatorError: a setting that its mode needs is missing.
    """
    db_url = partial(database_url, settings) if settings.db_host else None
    redis = redis_address(settings)
    try:
        manager = MatchDataWebSocketManager(
            db_url, settings.use_redis_notifier, redis, settings=settings, queries=queries
        )
    except ValueError as error:
        raise OperatorError(str(error)) from None
    limits = room_for_clients(settings.max_clients), settings.max_clients_per_address
    access = AccessControl(_tokens(settings), settings.allowed_origins, *limits)
    info = _worker_info(settings)
    registry = _registry(settings, redis, manager, info.uid) if settings.use_redis_notifier else None
    status, metrics = Status(info, manager, registry), WorkerMetrics(manager, info.version, info.slot)
    routes = [
        *ClientRoutes(manager, access, settings, explain=status.listener_problems, demo=info.embedded).routes(),
        *AdminRoutes(status, metrics, access).routes(settings.status_page),
    ]
    tasks: list[Task] = [partial(run_periodically, manager.sample, metrics.update)]
    connections = ConnectionLimit(room_for_others(settings.max_clients))
    return application(manager, routes, [*tasks, registry.run] if registry else tasks, connections)


def compose_or_exit(settings: Settings, queries: Queries) -> Starlette:
    """Return the application for these settings; a setting that is missing is one line, and exit code 2."""
    try:
        return compose(settings, queries)
    except OperatorError as error:
        print(f"notifymux: {error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        raise SystemExit(2) from None


async def run_periodically(*calls: Callable[[], None]) -> None:
    """Call all of `calls` once a second, until cancelled."""
    while True:
        await asyncio.sleep(1.0)
        for call in calls:
            call()


def _registry(
    settings: Settings, redis: RedisAddress, manager: MatchDataWebSocketManager, instance_id: str
) -> WorkerRegistry:
    return WorkerRegistry(
        async_client(redis),
        RedisNames(settings.redis_namespace),
        settings.pod_name,
        instance_id,
        report=manager.report,
        incidents=manager.event_stats.incidents,
        wake=manager.event_stats.verify_requested,
    )


def _worker_info(settings: Settings) -> WorkerInfo:
    return WorkerInfo(
        version=version("notifymux"),
        embedded=not servers_given(),
        namespace=settings.redis_namespace,
        pod=settings.pod_name,
        pid=os.getpid(),
        uid=uuid.uuid4().hex,
        started=time.time(),
        postgres=describe_server(url_without_password(settings)) if settings.db_host else None,
        redis=describe_redis(settings.redis_url.get_secret_value()),
        slot=settings.wal_slot if settings.source == "wal" else None,
    )


def _tokens(settings: Settings) -> Tokens | None:
    if settings.ws_jwt_secret:
        return Tokens(settings.ws_jwt_secret.get_secret_value(), "HS256", settings.other_keys)
    if settings.ws_jwt_public_key:
        return Tokens(settings.ws_jwt_public_key.get_secret_value(), "RS256", settings.other_keys)
    return None
