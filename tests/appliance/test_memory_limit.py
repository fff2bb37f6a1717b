"""A container that has too little memory says so when it starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import environment
from tests.support.servers import free_port
from tests.support.wrapped import with_mounts

MIB = 1 << 20
V1, V2 = "memory/memory.limit_in_bytes", "memory.max"
UNLIMITED = {V1: "9223372036854771712", V2: "max"}


def prepare(folder: Path, limits: dict[str, str], **settings: str) -> str:
    """What `prepare` logs where the machine's cgroups have these limits."""
    cgroups = folder / "cgroups"
    for name, limit in limits.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(f"{limit}\n")
    wrapper = with_mounts('mount --bind "$1" /sys/fs/cgroup', cgroups)
    result = subprocess.run(
        [*wrapper, sys.executable, "-m", "app.appliance", "prepare"],
        cwd=folder,
        env=environment({"HOST": "127.0.0.1", "PORT": str(free_port()), **settings}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("version", [V1, V2])
def test_with_own_servers_less_than_the_workers_take_is_a_warning(tmp_path: Path, version: str) -> None:
    logged = prepare(tmp_path, {version: str(128 * MIB)}, DB_HOST="db")
    assert "WARNING this container has 128 MiB of memory, and 4 workers take about 256 MiB at rest: give it" in logged


def test_the_demo_needs_more(tmp_path: Path) -> None:
    logged = prepare(tmp_path, {V2: str(256 * MIB)})
    assert "this container has 256 MiB of memory, and 4 workers and the demo take about 512 MiB at rest" in logged


@pytest.mark.parametrize(
    ("limits", "settings"),
    [
        (UNLIMITED, {}),
        ({V1: str(256 * MIB), V2: "max"}, {}),
        ({V2: str(160 * MIB)}, {"WEB_CONCURRENCY": "1"}),
        ({"unrelated": ""}, {}),
    ],
)
def test_with_enough_memory_or_no_limit_nothing_is_said(
    tmp_path: Path, limits: dict[str, str], settings: dict[str, str]
) -> None:
    assert "memory" not in prepare(tmp_path, limits, DB_HOST="db", **settings)
