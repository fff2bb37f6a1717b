"""npm packages for tests that need Node.js or a browser."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def install_packages(source: Path, folder: Path) -> Path:
    """Copy `source` to `folder` and install the packages of its lock file there.

    If there is no npm, skip the test, or fail it in CI.
    """
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("there is no npm: install the packages nodejs and npm")
        pytest.skip("there is no npm")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True)
    return folder
