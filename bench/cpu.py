"""What processes use: CPU time to the nanosecond, and memory of their own. Linux only."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil


def family(pid: int) -> list[int]:
    """A process and all that came from it."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def cpu_seconds(pids: Iterable[int]) -> float:
    """The time that processes have run so far."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # a thread that ended meanwhile
                total += int(task.read_text(encoding="ascii").split()[0])
    return total / 1e9


def memory_bytes(pids: Iterable[int]) -> int:
    """What processes hold of the machine's memory; what is shared is counted once (PSS)."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)


class Meter:
    """CPU time by part since it was made.

    Args:
        parts: each part's name, and the process at its head.
    """

    def __init__(self, parts: Mapping[str, int]) -> None:
        self._parts = {name: family(pid) for name, pid in parts.items()}
        self._before = self._now()

    def read(self) -> dict[str, float]:
        """Seconds, by part."""
        return {name: now - self._before[name] for name, now in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {name: cpu_seconds(pids) for name, pids in self._parts.items()}


def halves() -> tuple[set[int], set[int]]:
    """This process's cores in two parts, for two sides that in life run on two machines; both all if it is one core."""
    cores = sorted(os.sched_getaffinity(0))
    middle = len(cores) // 2
    return (set(cores[:middle]), set(cores[middle:])) if middle else (set(cores), set(cores))


def pin(pid: int, cores: set[int]) -> None:
    """Lets a process, all that came from it and all that will, run on these cores only."""
    for member in family(pid):
        with suppress(OSError):  # it has ended
            for task in Path(f"/proc/{member}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)
