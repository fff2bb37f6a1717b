"""The tests of the schema `notifymux` on versions of PostgreSQL that other tests don't use: those run on 15 and 18."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.npm import install_packages
from tests.support.postgres_cluster import PostgresServer
from tests.support.process import ROOT, environment

FOLDER = Path(__file__).parent
VERSIONS = ("14", "17")
TESTS = [str(path) for name in ("test_schema_install", "test_watch*") for path in sorted(FOLDER.glob(f"{name}.py"))]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the servers' programs by version."""
    packages = install_packages(FOLDER / "npm", tmp_path_factory.mktemp("npm") / "npm") / "node_modules"
    return {version: packages / f"postgres-{version}" / "native/bin" for version in VERSIONS}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_tests_pass_on(
    version: str, programs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_folder = str(programs[version])
    monkeypatch.setenv("TEST_POSTGRES_BIN", bin_folder)
    with PostgresServer.initialise(tmp_path / "data").start() as server:
        assert server.value("SHOW server_version").startswith(f"{version}.")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *TESTS],
            cwd=ROOT,
            env=environment({"TEST_DATABASE_URL": server.conninfo(), "TEST_POSTGRES_BIN": bin_folder, "CI": "true"}),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
