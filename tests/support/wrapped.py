"""The product's programs under a command that changes what is around them: a namespace, a limit."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.process import Process
from tests.support.programs import App, Listener
from tests.support.servers import free_port


class WrappedListener(Listener):
    """`python -m listener` under `wrapper`."""

    def __init__(self, wrapper: Sequence[str], folder: Path, settings: Mapping[str, str]) -> None:
        Process.__init__(self, [*wrapper, sys.executable, "-m", "listener"], folder, settings)


class WrappedApp(App):
    """gunicorn and its workers under `wrapper`."""

    def __init__(self, wrapper: Sequence[str], folder: Path, settings: Mapping[str, str], workers: int = 1) -> None:
        self.port = free_port()
        served = {"HOST": "127.0.0.1", "PORT": str(self.port), "WEB_CONCURRENCY": str(workers)}
        gunicorn = [str(Path(sys.executable).with_name("gunicorn")), "-c", "python:app.gunicorn_conf", "app.main:app"]
        Process.__init__(self, [*wrapper, *gunicorn], folder, {**served, **settings})


def with_mounts(script: str, *arguments: object) -> list[str]:
    """Has a program see other mounts than everybody else: those that `script` makes of its arguments."""
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("mounting needs root")
        pytest.skip("mounting needs root")
    shifted = f'set -e; {script}; shift {len(arguments)}; exec "$@"'
    return ["unshare", "--mount", "sh", "-c", shifted, "sh", *map(str, arguments)]
