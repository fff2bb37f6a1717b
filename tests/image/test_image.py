"""The one image, built and run by a real container engine (CONTAINER_ENGINE: docker or podman)."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import ROOT
from tests.support.programs import Client, get
from tests.support.servers import free_port
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

    def __init__(self, engine: Engine, image: str, *options: str) -> None:
        self._engine, self.port = engine, free_port()
        self.name = f"notifymux-{uuid.uuid4().hex[:8]}"
        published = f"127.0.0.1:{self.port}:8000"
        engine("run", "--detach", "--name", self.name, "--publish", published, *options, image)

    def ready(self) -> None:
        wait_until(lambda: get(self.port, "/readyz")[0] == 200, 60, "ready")

    def exec(self, *command: str) -> str:
        return self._engine("exec", self.name, *command, check=False)

    def stop(self) -> int:
        self._engine("stop", self.name)
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
    """The image, built as the README says, with this machine's way to its package index."""
    options = ["--network", "host"]
    if engine.name == "podman":
        options += ["--pull=never", "--format", "docker"]
        if Path("/etc/pip.conf").exists():
            options += ["--volume", "/etc/pip.conf:/etc/pip.conf:ro"]
    engine("build", *options, "--tag", "notifymux:test", str(ROOT))
    return "notifymux:test"


@pytest.fixture(params=[[], ["--read-only", "--tmpfs", "/tmp"]], ids=["default", "read-only"])
def container(request: pytest.FixtureRequest, engine: Engine, image: str) -> Iterator[Container]:
    container = Container(engine, image, *request.param)
    yield container
    container.remove()


def test_the_image_alone_is_the_demo_and_supervisorctl_works_in_it(container: Container) -> None:
    container.ready()
    with Client(container.port, MATCH, "viewer") as client:
        assert client.loaded()["data"]["match"]["id"] == MATCH
        client.heard(5)
    status = container.exec("supervisorctl", "status")
    assert status.count("RUNNING") == 5, status
    assert "started" in container.exec("supervisorctl", "restart", "listener")
    container.ready()
    assert container.exec("id", "-u") != "0"
    assert container.stop() == 0


def test_arguments_run_instead_and_a_sidecar_says_what_it_lacks(engine: Engine, image: str) -> None:
    result = subprocess.run(
        [engine.name, "run", "--rm", image, "python", "-m", "listener"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "DB_HOST is not set" in result.stdout


def test_the_image_holds_no_pip_and_no_compiler(engine: Engine, image: str) -> None:
    found = engine("run", "--rm", image, "sh", "-c", "command -v gcc cc pip pip3; true")
    assert found == ""
    labels = json.loads(engine("inspect", "--format", "{{json .Config.Labels}}", image))
    assert labels["org.opencontainers.image.title"] == "notifymux"
