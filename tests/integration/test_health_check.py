"""The command of the image's HEALTHCHECK, which decides whether an orchestrator ends the container."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartApp
from tests.support.process import ROOT, environment
from tests.support.programs import App
from tests.support.servers import free_port
from tests.support.waiting import wait_until

NO_SERVERS = {"DB_HOST": "127.0.0.1", "DB_PORT": "9", "REDIS_URL": "redis://127.0.0.1:9", "USE_REDIS_NOTIFIER": "true"}


def health_check(folder: Path, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the Dockerfile's command, as docker does."""
    found = re.search(
        r"^HEALTHCHECK .*--timeout=(\d+)s.* CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert found
    python, *arguments = json.loads(found[2])
    assert python == "python"
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=int(found[1]),
        check=False,
    )


def address(app: App) -> dict[str, str]:
    return {"HOST": "127.0.0.1", "PORT": str(app.port)}


def state(app: App) -> str | None:
    body = app.get("/readyz")[1]
    return body and str(body["state"])


def test_a_container_is_healthy_in_an_outage_of_both_servers(tmp_path: Path, start_app: StartApp) -> None:
    app = start_app(NO_SERVERS)
    wait_until(lambda: state(app) == "degraded")
    result = health_check(tmp_path, NO_SERVERS | address(app))
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_a_container_is_unhealthy_when_a_bug_ended_its_source_or_when_nothing_answers(tmp_path: Path) -> None:
    (tmp_path / "ended.py").write_text(
        "from app.sources.redis import RedisSource\n"
        "async def run(*_): raise ZeroDivisionError\n"
        "RedisSource.run = run\n"
        "from app.main import app\n"
    )
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with App(tmp_path, NO_SERVERS | path, program="ended:app") as app:
        wait_until(lambda: state(app) == "broken")
        result = health_check(tmp_path, NO_SERVERS | address(app))
        assert result.returncode == 1
        assert "this worker's source of events has ended" in result.stderr
    result = health_check(tmp_path, NO_SERVERS | address(app))
    assert result.returncode == 1
    assert f"nothing answers at http://localhost:{app.port}" in result.stderr


def test_a_container_whose_server_is_frozen_is_unhealthy(tmp_path: Path, start_app: StartApp) -> None:
    app = start_app(NO_SERVERS)
    wait_until(lambda: state(app) == "degraded")
    [worker] = psutil.Process(app.pid).children()
    worker.suspend()
    try:
        assert health_check(tmp_path, NO_SERVERS | address(app)).returncode == 1
    finally:
        worker.resume()


@pytest.mark.parametrize("wrong", ["PORT=none", "DB_PORT=none"])
def test_a_typing_error_in_dotenv_does_not_end_a_container_that_runs(tmp_path: Path, wrong: str) -> None:
    (tmp_path / ".env").write_text(f"{wrong}\n")
    result = health_check(tmp_path, {"HOST": "127.0.0.1", "PORT": str(free_port())} if "DB" in wrong else {})
    assert result.returncode == 0
    assert wrong.partition("=")[0] in result.stdout
