"""The memory (PSS) and the CPU time of a pod at rest, by program, without PostgreSQL and Redis."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sys import executable

import psutil

from bench.cpu import cpu_seconds, memory_bytes
from bench.environment import Environment, Place
from bench.report import Figure, Report
from tests.support.process import ROOT, Process
from tests.support.programs import get
from tests.support.servers import free_port
from tests.support.waiting import wait_until

BASE = "the pod"
_WORKERS = 4
_ROUNDS, _SHORT_ROUNDS = 3, 1
_SETTLE_SECONDS, _SHORT_SETTLE_SECONDS = 10.0, 0.5
_SECONDS, _SHORT_SECONDS = 20.0, 1.0
_LINKED = ("app", "listener", "notifymux", "supervisord.conf", "entrypoint.sh")
# A word of a command line, and the program that the command starts.
_PROGRAMS = {"listener": "listener", "gunicorn": "gunicorn's master", "keeper": "watchdog's guard"}


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Start the pod with supervisord, leave it at rest, and measure each of its processes."""
    settle, seconds = (_SHORT_SETTLE_SECONDS, _SHORT_SECONDS) if short else (_SETTLE_SECONDS, _SECONDS)
    for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
        with environment.place() as place, _pod(place) as relay:
            time.sleep(settle)
            parts = _parts(relay)
            before, began = {name: cpu_seconds(pids) for name, pids in parts.items()}, time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            for name, pids in parts.items():
                cpu = (cpu_seconds(pids) - before[name]) / took * 100
                memory = memory_bytes(pids) / 2**20
                report.run(
                    "memory",
                    f"{_WORKERS} workers at rest",
                    name,
                    Figure("memory (PSS)", "MiB", memory),
                    Figure("CPU", "% of a core", cpu),
                )


@contextmanager
def _pod(place: Place) -> Iterator[int]:
    """Start a pod, and yield its first process's id when all its workers are ready."""
    for name in _LINKED:
        (place.folder / name).symlink_to(ROOT / name)
    port = free_port()
    served = {"HOST": "127.0.0.1", "PORT": str(port), "WEB_CONCURRENCY": str(_WORKERS), "USE_REDIS_NOTIFIER": "true"}
    path = {"PATH": f"{Path(executable).parent}:/usr/bin:/bin"}
    with Process(["./entrypoint.sh"], place.folder, place.settings | served | path) as process:
        wait_until(lambda: get(port, "/readyz")[0] == 200, 60, lambda: f"ready:\n{process.log}")
        wait_until(lambda: len(_parts(process.pid)["workers"]) == _WORKERS, 20, "all workers")
        yield process.pid


def _parts(relay: int) -> dict[str, list[int]]:
    """Return the pod's process ids by program. A program that is not known here is an error.

    Args:
        relay: the pod's first process, the output relay, whose child is supervisord.
    """
    first = psutil.Process(relay)
    [supervisord] = first.children()
    parts = {BASE: [relay, *(child.pid for child in first.children(recursive=True))], "workers": []}
    for child in supervisord.children():
        command = " ".join(child.cmdline())
        [name] = {program for word, program in _PROGRAMS.items() if word in command}
        parts[name] = [child.pid]
        if name == "gunicorn's master":
            parts["workers"] = [worker.pid for worker in child.children()]
        elif name == "watchdog's guard":
            parts["watchdog"] = [watchdog.pid for watchdog in child.children()]
    parts["supervisord and output relay"] = [supervisord.pid, relay]
    assert sorted(parts[BASE]) == sorted(pid for name, pids in parts.items() if name != BASE for pid in pids)
    return parts
