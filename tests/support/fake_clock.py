"""A clock that is wrong: a program is told another time of day than everybody else, and nothing else is changed."""

from pathlib import Path

from tests.support.process import ROOT

# Python imports it when it starts. The product asks for the time of day with time.time, and for intervals elsewhere.
_SITECUSTOMIZE = """\
import time

_time = time.time
time.time = lambda: _time() + {seconds}
"""


def clock_off_by(seconds: int, folder: Path) -> dict[str, str]:
    """The environment of a program whose clock is off; a file is written into `folder` for it."""
    made = folder / f"clock{seconds:+d}"
    made.mkdir(exist_ok=True)
    (made / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(seconds=seconds))
    return {"PYTHONPATH": f"{made}:{ROOT}"}
