"""gunicorn's configuration, from the settings. A wrong setting ends the master here, with one line and exit code 2."""

import sys
from typing import Any

from app.core.config import load_settings_or_exit
from app.core.logs import logging_config
from app.core.postgres import OperatorError
from app.main import compose
from app.worker import end_with_parent

_settings = load_settings_or_exit()
try:
    compose(_settings)
except OperatorError as error:
    print(f"notifymux: {error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
    raise SystemExit(2) from None

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.web_concurrency
worker_class = "app.worker.Worker"
forwarded_allow_ips = _settings.forwarded_allow_ips
root_path = _settings.root_path
control_socket_disable = True
graceful_timeout = 5
timeout = 30
keepalive = 75
proc_name = "notifymux"
logconfig_dict = logging_config("app", _settings) | {
    "loggers": {name: {"handlers": [], "propagate": True} for name in ("gunicorn.error", "gunicorn.access")}
}


def post_fork(_server: Any, worker: Any) -> None:
    """Ties each worker to its master."""
    end_with_parent(worker.ppid)
