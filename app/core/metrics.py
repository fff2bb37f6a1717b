"""Prometheus metrics in files, so that one scrape shows every process of this pod.

This is prometheus-client's multi-process mode with a folder for each program, and in it a slot for each process, where
prometheus-client has the process id. A process that takes the slot of a dead one continues its counters: they never
fall, and files don't pile up, which they would with a process id for each restarted worker.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO

from prometheus_client import CollectorRegistry, Counter, Metric, disable_created_metrics, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.core.settings_sources import RUN_DIR

# One set of buckets for every histogram of latencies.
LATENCY_BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Names and explanations of gauges that a listener has, and in PostgreSQL mode the workers: the pod's is the highest.
LOCK_WAITERS = "postgres_lock_waiters", "Sessions that wait for the notification lock."
LOCK_WAIT_SECONDS = "postgres_lock_wait_seconds", "How long the first of them has waited."

# The files of one process, by prometheus-client's names. They get their room when they are made: if the disk is full
# when a process writes to the mapped memory of a file with holes, the kernel kills it (SIGBUS).
_SLOT_FILES = ("counter", "histogram", "gauge_livesum", "gauge_livemin", "gauge_livemax", "gauge_livemostrecent")
_FILE_BYTES = 1 << 16  # prometheus-client's size of a new file, and several times what a process takes

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the variable from which prometheus-client takes it
_held: list[IO[bytes]] = []  # this process's locks, until it ends


def remove_stale_files(program: str) -> None:
    """Remove the files of earlier runs of `program`; to be called when it starts.

    Raises:
        OSError: its folder can't be written.
    """
    folder = _folder(program)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.db"):
        if not _is_held(path):
            path.unlink()


def check_room(program: str, processes: int) -> None:
    """Check that the disk has room for the files of so many processes of `program`.

    Raises:
        OSError: it has not, or its folder can't be written.
    """
    probe = _folder(program) / "room"
    try:
        _allocate(probe, processes * len(_SLOT_FILES) * _FILE_BYTES)
    finally:
        probe.unlink(missing_ok=True)


def enable_multiprocess(program: str) -> None:
    """Keep the metrics that this process creates from here on in files.

    Raises:
        OSError: the files can't be written; the metrics are then in this process only.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # files can't hold them, and all modes show the same
    folder = _folder(program)
    slot, lock = next((slot, lock) for slot in count() if (lock := _claim(folder / f"{slot}.lock")))
    try:
        for name in _SLOT_FILES:
            _allocate(folder / f"{name}_{slot}.db", _FILE_BYTES)
    except OSError:
        for name in _SLOT_FILES:
            (folder / f"{name}_{slot}.db").unlink(missing_ok=True)
        lock.close()
        raise
    _held.append(lock)
    os.environ[_FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def _claim(path: Path) -> IO[bytes] | None:
    """Take a slot, unless a process has it. A scrape that looks whether one has it holds the lock for microseconds."""
    for _ in range(2):
        with suppress(BlockingIOError):
            return _lock(path, fcntl.LOCK_EX)
        time.sleep(0.001)
    return None


def render(own: CollectorRegistry) -> bytes:
    """Return the metrics of all processes in Prometheus's text format; without files, those in `own`.

    The counters of dead processes are included, their gauges are not.
    """
    if _FOLDER not in os.environ:
        return generate_latest(own)
    merged = CollectorRegistry()
    merged.register(_AllProcesses(Path(os.environ[_FOLDER]).parent))
    return generate_latest(merged)


class CounterSync:
    """Raises Prometheus's counters to the totals of plain ones."""

    def __init__(self) -> None:
        self._totals: dict[Counter, int] = {}

    def __call__(self, counter: Counter, total: int) -> None:
        """Raise `counter` by the growth of `total` since the last call."""
        counter.inc(total - self._totals.get(counter, 0))
        self._totals[counter] = total


class _AllProcesses(Collector):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        for _ in range(3):
            with suppress(FileNotFoundError):  # a program that starts removes its stale files
                return self._merge()
        return self._merge()

    def _merge(self) -> Iterable[Metric]:
        paths = [path for path in self._folder.glob("*/*.db") if _is_current(path)]
        metrics: Iterable[Metric] = MultiProcessCollector.merge(map(str, paths))  # type: ignore[no-untyped-call]
        return metrics


def _folder(program: str) -> Path:
    return RUN_DIR.resolve() / "metrics" / program


def _allocate(path: Path, size: int) -> None:
    """Make a file, or keep the one that there is, and give it `size` bytes on the disk."""
    with path.open("ab") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:  # else this file system can't tell
                raise OSError(error.errno, error.strerror, str(path)) from None


def _lock(path: Path, kind: int) -> IO[bytes]:
    file = path.open("wb")
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _is_current(path: Path) -> bool:
    """Whether a file is part of the metrics. An empty one is not: its process was killed when it had just made it."""
    return path.stat().st_size > 0 and (not path.name.startswith("gauge") or _is_held(path))


def _is_held(path: Path) -> bool:
    """Whether the process of a file is alive."""
    slot = path.stem.rpartition("_")[2]
    try:
        _lock(path.with_name(f"{slot}.lock"), fcntl.LOCK_SH).close()
    except BlockingIOError:
        return True
    return False
