"""Installs peers without changes to the system: each in its own folder below `.bench`."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.process import ROOT

_CACHE = ROOT / ".bench"


class NotInstalledError(Exception):
    """A peer can't be installed. The message is one line with the reason."""


def installed(name: str, install: Callable[[Path], None]) -> Path:
    """Return the folder of a peer, and call `install` to fill it if it does not exist.

    Raises:
        NotInstalledError: the peer can't be installed.
    """
    folder = _CACHE / f"{name}-{sys.implementation.cache_tag}-{platform.machine()}"
    if not folder.exists():
        new = folder.with_name(f"{folder.name}.new")  # renamed when it is complete
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        install(new)
        new.rename(folder)
    return folder


def run(command: Sequence[str], folder: Path) -> str:
    """Run a command and return its output.

    Raises:
        NotInstalledError: the command does not exist, or failed.
    """
    if shutil.which(command[0]) is None:
        raise NotInstalledError(f"there is no {command[0]} on this machine")
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no output"]
        raise NotInstalledError(f"{' '.join(command[:3])} failed: {lines[-1]}")
    return result.stdout


def npm(package: Path) -> Callable[[Path], None]:
    """Return a function that installs the packages of a `package-lock.json`."""

    def install(folder: Path) -> None:
        shutil.copytree(package, folder, dirs_exist_ok=True)
        run(["npm", "ci", "--no-audit", "--no-fund"], folder)

    return install


def pip(*requirements: str) -> Callable[[Path], None]:
    """Return a function that installs Python packages into a folder, without their dependencies."""

    def install(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        run([*command, *requirements], folder)

    return install


def debian(*packages: str) -> Callable[[Path], None]:
    """Return a function that unpacks Debian packages without configuring them."""

    def install(folder: Path) -> None:
        run(["apt-get", "download", "--quiet", *packages], folder)
        for package in folder.glob("*.deb"):
            run(["dpkg-deb", "--extract", package.name, "."], folder)

    return install
