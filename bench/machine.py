"""A description of the machine."""

import os
import platform
import re
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil

_PACKAGES = ("notifymux", "psycopg", "redis", "hiredis", "uvloop", "uvicorn", "gunicorn", "starlette", "websockets")
_PAGE_BYTES, _FLUSHES = 8192, 200


def describe() -> list[str]:
    """Return lines that describe the machine, its load before the benchmark, and the versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    day, cores = time.strftime("%Y-%m-%d"), len(os.sched_getaffinity(0))
    return [
        f"{day}: {_processor()}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}",
        f"load before: {load}",
        f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in _PACKAGES)}",
    ]


def describe_disk(folder: Path) -> str:
    """Return the file system that a folder is on, and the median time in which it flushes a page that has its place."""
    mounts = {Path(each.mountpoint): each for each in psutil.disk_partitions(all=True)}
    own = folder.resolve()
    found = next(mounts[parent] for parent in (own, *own.parents) if parent in mounts)
    with tempfile.TemporaryFile(dir=folder) as file:
        times = [_flush_seconds(file.fileno()) for _ in range(_FLUSHES)][1:]  # the first one allocates the page
    return f"{found.fstype} ({found.device}), where a flush takes {median(times) * 1e3:.2f} ms"


def _flush_seconds(file: int) -> float:
    os.pwrite(file, os.urandom(_PAGE_BYTES), 0)
    began = time.perf_counter()
    os.fdatasync(file)
    return time.perf_counter() - began


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()
