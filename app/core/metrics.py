"""Where Prometheus's metrics are kept: in files, so that one scrape shows every process of this pod.

prometheus-client's multi-process mode, with a folder for each program and in it a slot for each of its processes. A
process that takes the slot of a dead one goes on with its counters: they never fall, and the files don't pile up.
"""

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO

from prometheus_client import CollectorRegistry, Counter, Metric, disable_created_metrics, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.core.config import RUN_DIR

# One set of buckets for every histogram of latencies.
LATENCY_BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the variable in which prometheus-client looks for it
_held: list[IO[bytes]] = []  # locks, for this process's life


def begin(program: str) -> None:
    """Removes what earlier processes of `program` left; to be called when it starts.

    Raises:
        OSError: its folder can't be written.
    """
    folder = _folder(program)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.db"):
        if not _is_held(path):
            path.unlink()


def keep(program: str) -> None:
    """Has the metrics that this process creates from here on be kept in files.

    Raises:
        OSError: they can't be written; the metrics are then this process's alone.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # files don't have them, and there should be no difference
    folder = _folder(program)
    for slot in count():
        with suppress(BlockingIOError):
            _held.append(_lock(folder / f"{slot}.lock", fcntl.LOCK_EX))
            break
    os.environ[_FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def exposition(own: CollectorRegistry) -> bytes:
    """Every process's metrics in Prometheus's text format; `own` alone, where they are not kept in files.

    What a dead process counted is there; what it said of the present is not.
    """
    if _FOLDER not in os.environ:
        return generate_latest(own)
    merged = CollectorRegistry()
    merged.register(_Merged(Path(os.environ[_FOLDER]).parent))
    return generate_latest(merged)


class CounterSync:
    """Raises Prometheus's counters to what plain ones say."""

    def __init__(self) -> None:
        self._fed: dict[Counter, int] = {}

    def __call__(self, counter: Counter, total: int) -> None:
        """Raises `counter` by what `total` has grown."""
        counter.inc(total - self._fed.get(counter, 0))
        self._fed[counter] = total


class _Merged(Collector):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        for _ in range(3):
            with suppress(FileNotFoundError):  # a program that starts removes its files
                return self._merge()
        return self._merge()

    def _merge(self) -> Iterable[Metric]:
        paths = [path for path in self._folder.glob("*/*.db") if _counts(path)]
        metrics: Iterable[Metric] = MultiProcessCollector.merge(map(str, paths))  # type: ignore[no-untyped-call]
        return metrics


def _folder(program: str) -> Path:
    return RUN_DIR.resolve() / "metrics" / program


def _lock(path: Path, kind: int) -> IO[bytes]:
    file = path.open("wb")
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _counts(path: Path) -> bool:
    """Whether a file is to be read: nothing is in it if its process was killed at its beginning."""
    return path.stat().st_size > 0 and (not path.name.startswith("gauge") or _is_held(path))


def _is_held(path: Path) -> bool:
    """Whether the process lives whose file this is."""
    slot = path.stem.rpartition("_")[2]
    try:
        _lock(path.with_name(f"{slot}.lock"), fcntl.LOCK_SH).close()
    except BlockingIOError:
        return True
    return False
