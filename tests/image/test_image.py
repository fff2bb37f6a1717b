"""The image, built and run by a real container engine (CONTAINER_ENGINE: docker or podman)."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import ROOT
from tests.support.programs import Client, get
from tests.support.servers import Servers, database_settings, free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

MATCH = 1  # the demo's


class Engine:
    """docker or podman."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: str, check: bool = True) -> str:
        result = subprocess.run([self.name, *arguments], capture_output=True, text=True, check=False)
        assert not check or result.returncode == 0, f"{arguments}: {result.stdout[-3000:]}{result.stderr[-3000:]}"
        return result.stdout.strip()


class Container:
    """A running container of the image, serving on a loopback port."""

    def __init__(self, engine: Engine, image: str, *options: str, on_the_host: bool = False) -> None:
        self._engine, self.port = engine, free_port()
        self.name = f"notifymux-{uuid.uuid4().hex[:8]}"
        way = ["--publish", f"127.0.0.1:{self.port}:8000"]
        if on_the_host:
            way = ["--network", "host", "--env", "HOST=127.0.0.1", "--env", f"PORT={self.port}"]
        engine("run", "--detach", "--name", self.name, *way, *options, image)

    def ready(self) -> None:
        wait_until(lambda: get(self.port, "/readyz")[0] == 200, 60, "ready")

    @property
    def log(self) -> str:
        return self._engine("logs", self.name)

    def exec(self, *command: str) -> str:
        return self._engine("exec", self.name, *command, check=False)

    def exec_in(self, folder: str, *command: str) -> str:
        return self._engine("exec", "--workdir", folder, self.name, *command, check=False)

    def stop(self) -> int:
        self._engine("stop", "--time", "10", self.name)  # Docker's own grace; 137 is the code of who needs longer
        return int(self._engine("inspect", "--format", "{{.State.ExitCode}}", self.name))

    def remove(self) -> None:
        self._engine("rm", "--force", "--volumes", self.name, check=False)


@pytest.fixture(scope="module")
def engine() -> Engine:
    name = os.environ.get("CONTAINER_ENGINE")
    if name is None:
        if os.environ.get("CI"):
            pytest.fail("CONTAINER_ENGINE is not set: the image's tests need docker or podman")
        pytest.skip("CONTAINER_ENGINE is not set")
    return Engine(name)


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """The image, built as the README says, with this machine's pip configuration."""
    options = ["--network", "host"]
    if engine.name == "podman":
        options += ["--pull=never", "--format", "docker"]
        if Path("/etc/pip.conf").exists():
            options += ["--volume", "/etc/pip.conf:/etc/pip.conf:ro"]
    engine("build", *options, "--tag", "notifymux:test", str(ROOT))
    return "notifymux:test"


LOCKED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL", "--security-opt", "no-new-privileges"]


@pytest.fixture(params=[[], LOCKED], ids=["default", "locked"])
def container(request: pytest.FixtureRequest, engine: Engine, image: str) -> Iterator[Container]:
    container = Container(engine, image, *request.param)
    yield container
    container.remove()


def test_the_image_alone_is_the_demo_and_supervisorctl_works_in_it(container: Container) -> None:
    container.ready()
    with Client(container.port, MATCH, "viewer") as client:
        assert client.wait_for_initial_load()["data"]["match"]["id"] == MATCH
        client.wait_for_updates(5)
    status = container.exec("supervisorctl", "status")
    assert status.count("RUNNING") == 6, status
    assert "started" in container.exec("supervisorctl", "restart", "listener")
    container.ready()
    assert "Redis writes" in container.exec_in("/tmp", "python", "-m", "listener", "verify")
    assert container.exec_in("/tmp", "python", "-m", "app.appliance", "ready") == ""
    assert container.exec("id", "-u") != "0"
    assert container.stop() == 0


@pytest.mark.parametrize("user", ["10001:10001", "4711:4711", "4711:0", "0:0"])
def test_with_own_servers_it_runs_as_any_user_and_writes_to_tmp_only(
    engine: Engine, image: str, servers: Servers, user: str
) -> None:
    given = database_settings(servers.embedded.database_url) | {"REDIS_URL": servers.embedded.redis_url}
    odd = {"USE_REDIS_NOTIFIER": "true", "POD_NAME": "pod", "ODD": "100% \"quoted\" ; 'and' $PATH %(here)s"}
    options = [*LOCKED, "--user", user]
    if engine.name == "podman":
        options.append("--passwd=false")  # on Docker and OpenShift such a user has no entry there
    for name, value in (given | odd).items():
        options += ["--env", f"{name}={value}"]
    container = Container(engine, image, *options, on_the_host=True)
    try:
        container.ready()
        assert container.exec("supervisorctl", "status").count("RUNNING") == 3
        assert container.exec("id", "-u") == user.partition(":")[0]
        assert "settings from the environment: DB_HOST" in container.log
        assert given["DB_PASSWORD"] not in container.log
        assert "CRIT" not in container.log
        assert container.stop() == 0
    finally:
        container.remove()


def test_a_mounted_dotenv_is_read_again_at_a_restart(
    engine: Engine, image: str, servers: Servers, tmp_path: Path
) -> None:
    given = database_settings(servers.embedded.database_url) | {"REDIS_URL": servers.embedded.redis_url}
    dotenv = tmp_path / "settings"

    def write(**more: str) -> None:
        dotenv.write_text("".join(f"{name}='{value}'\n" for name, value in (given | more).items()))
        dotenv.chmod(0o644)

    write(USE_REDIS_NOTIFIER="false")
    container = Container(engine, image, "--volume", f"{dotenv}:/srv/notifymux/.env", on_the_host=True)
    try:
        container.ready()
        assert get(container.port, "/readyz")[1]["mode"] == "postgres"
        write(USE_REDIS_NOTIFIER="true")
        container.exec("supervisorctl", "restart", "app", "listener")
        container.ready()
        wait_until(lambda: (get(container.port, "/readyz")[1] or {}).get("mode") == "redis")
        assert "from .env: DB_HOST" in container.log
    finally:
        container.remove()


def test_arguments_run_instead_and_a_sidecar_logs_which_setting_is_missing(engine: Engine, image: str) -> None:
    result = subprocess.run(
        [engine.name, "run", "--rm", image, "python", "-m", "listener"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "DB_HOST is not set" in result.stdout


def test_help_says_what_there_is_to_run(engine: Engine, image: str) -> None:
    assert "python -m listener verify" in engine("run", "--rm", image, "--help")


def test_the_image_holds_no_pip_and_no_compiler(engine: Engine, image: str) -> None:
    found = engine("run", "--rm", image, "sh", "-c", "command -v gcc cc pip pip3; true")
    assert found == ""
    labels = json.loads(engine("inspect", "--format", "{{json .Config.Labels}}", image))
    assert labels["org.opencontainers.image.title"] == "notifymux"
