"""gunicorn's configuration, from the settings. A wrong setting ends the master here, with one line and exit code 2."""

import logging
import sys
from importlib import import_module
from typing import Any

from app.appliance.supervision.parent_death import terminate_with_parent
from app.composition import compose_or_exit
from app.core import metrics, setting_names
from app.core.config import load_queries_or_exit, load_settings_or_exit, where_settings_come_from
from app.core.logging_config import logging_config
from app.core.settings_sources import SettingsError
from app.core.settings_types import MIN_SECRET_BYTES
from app.web.gunicorn_master import end_at_once_on_the_second_sigterm, spare_workers_after_a_pause
from app.web.gunicorn_worker import KEEP_ALIVE_SECONDS, STOP_SECONDS, collect_seldom
from app.web.open_files import allow_open_files, warn_of_low_limit
from app.web.worker_loads import WorkerLoads

logger = logging.getLogger(__name__)

_metrics_in_files = True  # of the master, which workers inherit

_settings = load_settings_or_exit()
compose_or_exit(_settings, load_queries_or_exit())
try:
    _settings.serving_address.check(taken_is_wrong=False)  # gunicorn tries again, for some seconds
    bind = _settings.serving_address.bind_text()
except SettingsError as error:
    print(f"notifymux: {error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
    raise SystemExit(2) from None
# What the master has imported, workers share. Composing has imported all else that they need, but for the event loop,
# which uvicorn imports by its name.
import_module("uvicorn.loops.uvloop")

workers = _settings.web_concurrency
_loads = WorkerLoads(workers)
worker_class = "app.web.gunicorn_worker.Worker"
forwarded_allow_ips = _settings.forwarded_allow_ips
root_path = _settings.root_path
control_socket_disable = True
graceful_timeout = _settings.drain_seconds + STOP_SECONDS
timeout = 20  # seconds without a heartbeat until gunicorn replaces a worker
keepalive = KEEP_ALIVE_SECONDS
loglevel = _settings.log_level
logconfig_dict = logging_config("app", _settings.log_level, _settings.log_format) | {
    "loggers": {name: {"handlers": [], "propagate": True} for name in ("gunicorn.error", "gunicorn.access")}
}


def on_starting(_server: Any) -> None:
    """Log, once for all workers, where the settings come from, whether clients need tokens, and what is too small."""
    _prepare_metrics()
    warn_of_low_limit(_settings.max_clients)
    logger.info("settings %s", where_settings_come_from())
    for line in setting_names.warnings():
        logger.warning("%s", line)
    if not (_settings.ws_jwt_secret or _settings.ws_jwt_public_key):
        logger.warning("anyone may listen to every match: neither WS_JWT_SECRET nor WS_JWT_PUBLIC_KEY is set")
    elif _settings.ws_jwt_secret and len(_settings.ws_jwt_secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
        logger.warning("WS_JWT_SECRET is shorter than %d bytes, and can be guessed (RFC 7518, 3.2)", MIN_SECRET_BYTES)


def _prepare_metrics() -> None:
    global _metrics_in_files  # noqa: PLW0603 - gunicorn's configuration is a module
    try:
        metrics.remove_stale_files("app")
        metrics.check_room("app", workers)
    except OSError as error:
        _metrics_in_files = False
        logger.warning("/metrics will show the worker that answers, and nobody else: %s", error)


def when_ready(server: Any) -> None:
    """Prepare the master: it does not kill workers that have just woken up with it, and can be hurried."""
    spare_workers_after_a_pause(server)
    end_at_once_on_the_second_sigterm(server)


def pre_fork(_server: Any, worker: Any) -> None:
    """Give a worker its place in the memory by which workers share newcomers evenly."""
    worker.load = _loads.claim()


def child_exit(_server: Any, worker: Any) -> None:
    """Take the place of a worker that has ended back."""
    _loads.release(worker.load)


def post_fork(_server: Any, worker: Any) -> None:
    """Prepare a worker: it ends with its master, and has the files, the garbage collector and the metrics it needs."""
    terminate_with_parent(worker.ppid)
    allow_open_files(_settings.max_clients)
    collect_seldom()
    if _metrics_in_files:
        try:
            metrics.enable_multiprocess("app")
        except OSError as error:
            logger.warning("/metrics will not show this worker: %s", error)
