"""Programs and servers whose clock is wrong."""

import os
from pathlib import Path

import pytest

from tests.support.process import ROOT

_CLOCK = """
import time

_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {seconds}
time.time_ns = lambda: _time_ns() + {seconds} * 10**9
"""


def program_off_by(seconds: int, folder: Path) -> dict[str, str]:
    """The environment of one of our programs whose clock is ahead by so many seconds; `folder` is to hold a file."""
    (folder / "sitecustomize.py").write_text(_CLOCK.format(seconds=seconds), encoding="ascii")
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


def server_off_by(seconds: int) -> dict[str, str]:
    """The environment of a server whose clock is ahead by so many seconds; its monotonic clock is right."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        if os.environ.get("CI"):
            pytest.fail("there is no libfaketime: install the package faketime")
        pytest.skip("there is no libfaketime")
    # Not for our own programs: under it, Python's time.sleep fails.
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": f"{seconds:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
