"""What a person types who does not know the product yet, and from which folder."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import ROOT, environment


@pytest.mark.parametrize("asked", ["--help", "-h", "help"])
@pytest.mark.parametrize("script", ["run.sh", "entrypoint.sh"])
def test_help_is_given_and_nothing_started(tmp_path: Path, script: str, asked: str) -> None:
    result = _run(tmp_path, script, asked)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: ")
    assert "python -m listener verify" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [script], "no .venv, no .run"


@pytest.mark.parametrize(("script", "argument"), [("run.sh", "--port=80"), ("run.sh", "demo"), ("entrypoint.sh", "-d")])
def test_an_argument_that_there_is_not_starts_nothing(tmp_path: Path, script: str, argument: str) -> None:
    result = _run(tmp_path, script, argument)
    assert result.returncode == 2
    assert argument in result.stderr.splitlines()[0]
    assert "Usage: " in result.stderr


def _run(folder: Path, script: str, argument: str) -> subprocess.CompletedProcess[str]:
    (folder / script).write_bytes((ROOT / script).read_bytes())
    (folder / script).chmod(0o755)
    return subprocess.run(
        [f"./{script}", argument],
        cwd=folder,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _image_environment(home: Path) -> dict[str, str]:
    """What the image's ENV sets, with `home` in place of its folder."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    pairs = [pair.partition("=") for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE) for pair in line.split()]
    return {name: value.replace("/srv/notifymux", str(home)) for name, _, value in pairs if name != "PATH"}


def test_the_images_programs_run_in_any_folder_with_the_settings_of_their_own(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    for package in ("app", "listener", "notifymux"):
        (home / package).symlink_to(ROOT / package)
    (home / ".env").write_text("DB_HOST=127.0.0.1\nDB_PORT=9\nREDIS_URL=redis://127.0.0.1:9\nHOST=127.0.0.1\nPORT=9\n")
    inherited = {name: value for name, value in environment({}).items() if name != "PYTHONPATH"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=elsewhere,
            env=inherited | _image_environment(home),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    checks = json.loads(run("listener", "verify", "--json").stdout)["checks"]
    texts = {check["check"]: check["text"] for check in checks}
    assert texts["PostgreSQL"].startswith("127.0.0.1:9, database ")
    assert texts["Redis"].startswith("redis://127.0.0.1:9: ")
    assert "nothing answers at http://localhost:9 " in run("app.appliance", "ready").stderr
    assert list(elsewhere.iterdir()) == []
