"""A description of the machine."""

import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("notifymux", "psycopg", "redis", "hiredis", "uvloop", "uvicorn", "gunicorn", "starlette", "websockets")


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


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()
