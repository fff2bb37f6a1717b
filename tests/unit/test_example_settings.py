"""The settings in the README's `.env` and in docs/deploy are accepted."""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped]

from app.composition import compose
from app.core.config import Settings, load_settings
from tests.support.documents import DEPLOYED, README, blocks
from tests.support.process import ROOT

VARIABLES = {field.name.upper() for field in fields(Settings)}
IMAGE = re.compile(r"notifymux(:.+)?")


def test_the_readmes_dotenv_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = blocks(README, "ini")
    (tmp_path / ".env").write_text(example, encoding="utf-8")
    settings = loaded(tmp_path, monkeypatch, {})
    given = dict(line.split("=", 1) for line in example.splitlines())  # as `docker run --env-file` reads it
    assert settings == loaded(tmp_path / "elsewhere", monkeypatch, given)
    assert set(given) <= VARIABLES


def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    """The settings of a program that is started in a folder."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    for variable in VARIABLES & set(os.environ):
        monkeypatch.delenv(variable)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    return load_settings()


class Container(NamedTuple):
    """One container of our image: a part of a file in docs/deploy."""

    file: Path
    environment: dict[str, str]
    command: list[str]
    ports: list[int]
    paths: list[str]
    secrets: set[str]  # the paths under which they stand in it


def containers() -> list[Container]:
    found = [container for path in DEPLOYED for container in (*_composed(path), *_in_pods(path))]
    assert {container.file for container in found} == set(DEPLOYED)
    return found


def _documents(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))


def _composed(path: Path) -> Iterator[Container]:
    for document in _documents(path):
        for service in document.get("services", {}).values():
            if IMAGE.fullmatch(service["image"]):
                assert (path.parent / service["build"] / "Dockerfile").exists()
                assert set(service["secrets"]) <= set(document["secrets"])
                ports = [int(port.rpartition(":")[2]) for port in service["ports"]]
                secrets = {f"/run/secrets/{secret}" for secret in service["secrets"]}
                yield Container(path, service["environment"], [], ports, [], secrets)


def _in_pods(path: Path) -> Iterator[Container]:
    documents = _documents(path)
    keys = {
        (document["metadata"]["name"], key)
        for document in documents
        if document.get("kind") == "Secret"
        for key in document["stringData"]
    }
    for document in documents:
        if document.get("kind") != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume.get("secret", {}).get("secretName") for volume in pod["volumes"]}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert IMAGE.fullmatch(container["image"])
            probes = [
                container[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe") if probe in container
            ]
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            yield Container(
                path,
                {variable["name"]: variable["value"] for variable in container["env"]},
                container.get("args", []),
                [ports[probe["port"]] for probe in probes],
                [probe["path"] for probe in probes],
                {f"{mounts[volume]}/{key}" for volume, secret in volumes.items() for of, key in keys if of == secret},
            )


@pytest.mark.parametrize("container", containers(), ids=lambda container: container.file.name)
def test_a_deployed_containers_settings_are_accepted(
    container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(container.environment)
    for variable, value in environment.items():
        assert isinstance(value, str), variable
        if variable.endswith("_FILE"):
            assert value in container.secrets
            secret = tmp_path / variable
            secret.write_text("redis://redis:6379", encoding="utf-8")
            environment[variable] = str(secret)
    loaded(tmp_path, monkeypatch, environment)
    assert set(environment) <= VARIABLES


@pytest.mark.parametrize("container", containers(), ids=lambda container: container.file.name)
def test_a_deployed_containers_ports_paths_and_commands_are_the_programs_own(container: Container) -> None:
    assert set(container.ports) <= {Settings().port}
    assert set(container.paths) <= {getattr(route, "path", "") for route in compose(Settings(db_host="h")).routes}
    if container.command:
        commands = re.findall("^command=(.+)$", (ROOT / "supervisord.conf").read_text(encoding="utf-8"), re.MULTILINE)
        assert any(command.endswith(shlex.join(container.command)) for command in commands)


def test_a_deployed_container_runs_as_the_images_user() -> None:
    [user] = re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for document in (document for path in DEPLOYED for document in _documents(path)):
        if document.get("kind") == "Deployment":
            security = document["spec"]["template"]["spec"]["securityContext"]
            assert {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}
