"""The distribution `notifymux` beside another distribution whose import package is called `app`."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.process import ROOT, environment

OTHERS = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "others"
version = "1"
[tool.setuptools]
packages = ["app"]
""",
    "app/__init__.py": 'OWNER = "others"\n',
}

PROGRAM = """
import asyncio
import sys

import app
from notifymux import Event, EventId, Gap, RedisNotifierService, follow, init_redis_notifier

assert app.OWNER == "others", app
assert str(EventId.parse("7-1")) == "7-1"
assert Event("match_change").id is None


async def main(url):
    received = asyncio.Queue()

    async def callback(channel, payload):
        await received.put((channel, payload))

    service = await init_redis_notifier(url)
    assert isinstance(service, RedisNotifierService)
    service.register_callback("match_change", callback)
    await service.subscribe()
    listening = asyncio.create_task(service.listen_loop())
    await service.publish("match_change", {"id": 1})
    print(*await asyncio.wait_for(received.get(), 20))
    listening.cancel()
    await service.disconnect()
    async for item in follow(url):
        assert isinstance(item, Gap)
        break


asyncio.run(main(sys.argv[1]))
"""


def run(*command: object, cwd: Path) -> str:
    """What a command prints; nothing of this checkout is on its path."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment({"PYTHONPATH": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(project: Path, folder: Path) -> Path:
    """A project's wheel."""
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    run(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", folder, project, cwd=folder)
    [wheel] = folder.glob("*.whl")
    return wheel


def dependencies(name: str) -> Iterator[str]:
    """The distributions that `name` needs here, and those that these need."""
    for requirement in map(Requirement, requires(name) or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name
            yield from dependencies(requirement.name)


def repack(name: str, folder: Path) -> None:
    """Makes a wheel of an installed distribution, so that no index is needed."""
    installed = distribution(name)
    tag = next(line.split()[1] for line in (installed.read_text("WHEEL") or "").splitlines() if line.startswith("Tag:"))
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{installed.version}-{tag}.whl", "w") as wheel:
        for file in installed.files or []:
            if ".." not in file.parts and file.suffix != ".pyc":
                wheel.write(file.locate(), str(file))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of our dependencies."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in sorted(set(dependencies("notifymux"))):
        repack(name, folder)
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel, built from a copy of the checkout, in which the build leaves files."""
    folder = tmp_path_factory.mktemp("ours")
    project = folder / "notifymux"
    for package in ("notifymux", "app", "listener"):
        shutil.copytree(ROOT / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    return build(project, folder)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of somebody else, whose package is called `app`."""
    folder = tmp_path_factory.mktemp("others")
    for name, text in OTHERS.items():
        (folder / "others" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "others" / name).write_text(text)
    return build(folder / "others", folder)


def test_the_wheel_holds_one_import_package_with_its_types(ours: Path) -> None:
    names = zipfile.ZipFile(ours).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"notifymux"}
    assert "notifymux/py.typed" in names


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "theirs first"])
def test_it_works_beside_a_distribution_with_an_app_of_its_own(
    ours: Path, others: Path, wheels: Path, ours_first: bool, redis_url: str, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    order: Sequence[Path] = [ours, others] if ours_first else [others, ours]
    for wheel in order:
        run(python, "-m", "pip", "install", "--no-index", "--find-links", wheels, wheel, cwd=tmp_path)
    assert run(python, "-c", PROGRAM, redis_url, cwd=tmp_path) == "match_change {'id': 1}\n"
