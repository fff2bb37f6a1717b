"""Puts peers where they don't touch the machine: each in a folder of its own below `.bench`."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.process import ROOT

_CACHE = ROOT / ".bench"


class NotInstalledError(Exception):
    """A peer can't be had here; the message is one line that says why."""


def installed(name: str, install: Callable[[Path], None]) -> Path:
    """The peer's folder; filled by `install` if it isn't there yet.

    Raises:
        NotInstalledError: it can't be.
    """
    folder = _CACHE / f"{name}-{sys.implementation.cache_tag}-{platform.machine()}"
    if not folder.exists():
        new = folder.with_name(f"{folder.name}.new")  # renamed when it is whole
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        install(new)
        new.rename(folder)
    return folder


def run(command: Sequence[str], folder: Path) -> str:
    """What a command says.

    Raises:
        NotInstalledError: it isn't there, or failed.
    """
    if shutil.which(command[0]) is None:
        raise NotInstalledError(f"there is no {command[0]} on this machine")
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines() or ["nothing"]
        raise NotInstalledError(f"{' '.join(command[:3])} failed: {said[-1]}")
    return result.stdout


def npm(package: Path) -> Callable[[Path], None]:
    """Installs a folder with a `package-lock.json`."""

    def install(folder: Path) -> None:
        shutil.copytree(package, folder, dirs_exist_ok=True)
        run(["npm", "ci", "--no-audit", "--no-fund"], folder)

    return install


def pip(*requirements: str) -> Callable[[Path], None]:
    """Installs packages beside those that run this."""

    def install(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        run([*command, *requirements], folder)

    return install


def debian(*packages: str) -> Callable[[Path], None]:
    """Unpacks packages; nothing of them is configured or started."""

    def install(folder: Path) -> None:
        run(["apt-get", "download", "--quiet", *packages], folder)
        for package in folder.glob("*.deb"):
            run(["dpkg-deb", "--extract", package.name, "."], folder)

    return install
