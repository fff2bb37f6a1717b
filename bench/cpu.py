"""CPU time and memory of processes, and CPU affinity. Linux only."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil


def family(pid: int) -> list[int]:
    """Return the ids of a process and all of its descendants."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have used so far, with a resolution of nanoseconds."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # the thread has ended
                total += int(task.read_text(encoding="ascii").split()[0])
    return total / 1e9


def memory_bytes(pids: Iterable[int]) -> int:
    """Return the memory of processes (PSS): a page that several processes share is counted once."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)


class CpuMeter:
    """Measures the CPU time of several parts since it was created.

    Args:
        parts: the main process of each part, by the part's name.
    """

    def __init__(self, parts: Mapping[str, int]) -> None:
        self._parts = {name: family(pid) for name, pid in parts.items()}
        self._before = self._now()

    def read(self) -> dict[str, float]:
        """Return the CPU seconds by part."""
        return {name: now - self._before[name] for name, now in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {name: cpu_seconds(pids) for name, pids in self._parts.items()}


def halves() -> tuple[set[int], set[int]]:
    """Split the available cores in two halves, for programs that normally run on two machines.

    With a single core, both halves have it.
    """
    cores = sorted(os.sched_getaffinity(0))
    middle = len(cores) // 2
    return (set(cores[:middle]), set(cores[middle:])) if middle else (set(cores), set(cores))


def pin(pid: int, cores: set[int]) -> None:
    """Restrict a process, its descendants and those that they will start to some cores."""
    for member in family(pid):
        with suppress(OSError):  # the process has ended
            for task in Path(f"/proc/{member}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)
