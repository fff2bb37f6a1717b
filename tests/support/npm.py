"""Packages of npm, for tests that need Node's or a browser's."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def installed(source: Path, folder: Path) -> Path:
    """`folder`, made a copy of `source` with the packages of its lock file; without npm, CI fails."""
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("there is no npm: install the packages nodejs and npm")
        pytest.skip("there is no npm")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True)
    return folder
