"""The peers, each of which is installed when it is first used, and started in its own place."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.environment import Environment
from bench.peers.installed import debian, installed, npm, pip
from bench.systems import WORKERS, System, gunicorn
from tests.support.process import ROOT, Process
from tests.support.servers import free_port
from tests.support.waiting import wait_until

_HERE = Path(__file__).parent


@contextmanager
def pg_listen(environment: Environment, workers: int = WORKERS) -> Iterator[System]:
    """pg-listen and ws in Node processes."""
    folder = installed("pg-listen", npm(_HERE / "node"))
    with environment.place() as place:
        port = free_port()
        with Process(["node", "server.mjs", str(port), str(workers)], folder, place.environment) as process:
            wait_until(lambda: process.log.count("listening") == workers, 30, process.log)
            yield System("pg-listen", place, port, "/41/{}", {"workers": process.pid})


@contextmanager
def broadcaster(environment: Environment, workers: int = WORKERS) -> Iterator[System]:
    """The package broadcaster, Starlette and uvicorn under gunicorn."""
    folder = installed("broadcaster", pip("broadcaster==0.3.1", "asyncpg==0.32.0"))
    with environment.place() as place:
        variables = place.environment | {"PYTHONPATH": f"{ROOT}:{folder}"}
        with gunicorn("bench.peers.broadcaster_app:app", workers, place.folder, variables) as (port, process):
            yield System("broadcaster", place, port, "/41/{}", {"workers": process.pid})


@contextmanager
def nchan(environment: Environment, workers: int = WORKERS) -> Iterator[System]:
    """Debian's nginx with nchan, and a program that LISTENs and posts to it."""
    folder = installed("nchan", debian("nginx", "libnginx-mod-nchan"))
    with environment.place() as place:
        port = free_port()
        configuration = place.folder / "nginx.conf"
        template = (_HERE / "nginx.conf").read_text(encoding="utf-8")
        configuration.write_text(template.format(folder=folder, workers=workers, run=place.folder, port=port))
        nginx = [str(folder / "usr/sbin/nginx"), "-p", str(place.folder), "-e", "stderr", "-c", str(configuration)]
        publisher = [sys.executable, "-m", "bench.peers.nchan_publisher", str(port)]
        with (
            Process([*_with_var_lib_nginx(), *nginx], place.folder, {}) as server,
            Process(publisher, place.folder, place.environment) as listener,
        ):
            listener.wait_for_log("listening")
            yield System("nchan", place, port, "/41/{}", {"workers": server.pid, "listener": listener.pid})


def _with_var_lib_nginx() -> list[str]:
    """Return a command that runs another one with an empty /var/lib/nginx, which Debian's nginx needs.

    The folder exists only in the mount namespace of that command.
    """
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    return [
        "unshare",
        *namespaces,
        "sh",
        "-c",
        'mount -t tmpfs none /var/lib && mkdir /var/lib/nginx && exec "$@"',
        "sh",
    ]
