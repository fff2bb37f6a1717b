"""How much each worker of this pod has to do, in memory that they share."""

import mmap
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

# In place of a number of connections. The second is so low that it stays negative while connections come and go.
_STARTING, _NOT_SERVING = -1, -(1 << 40)
_SILENT_SECONDS = 1.0  # a worker that shows no sign of life for so long is frozen, or too busy for newcomers

Clock = Callable[[], float]


class WorkerLoads:
    """A slot of shared memory for each worker. The master makes it, and gives a slot to each worker before the fork.

    A worker writes its own slot only, so there are no locks.

    Args:
        workers: how many there are; twice as many have a slot of their own, since a reload starts the new ones first.
        clock: seconds on a monotonic clock that is the same in all processes.
    """

    def __init__(self, workers: int, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._users = [0] * (2 * workers)
        self._connections = _shared(len(self._users), "q")
        self._beats = _shared(len(self._users), "d")
        for index in range(len(self._users)):
            self._connections[index] = _NOT_SERVING

    def claim(self) -> "WorkerLoad":
        """Return the load of a new worker. If there are more workers than slots, some share one."""
        index = self._users.index(min(self._users))
        if not self._users[index]:
            self._connections[index] = _STARTING
        self._users[index] += 1
        return WorkerLoad(self._connections, self._beats, index, self._clock)

    def release(self, load: "WorkerLoad") -> None:
        """Take back the slot of a worker that has ended, in whatever way."""
        load.stop()
        self._users[load.index] -= 1


class WorkerLoad:
    """The load of one worker: its connections, without those that are idle between two requests."""

    def __init__(self, connections: "memoryview[int]", beats: "memoryview[float]", index: int, clock: Clock) -> None:
        self.index = index
        self._connections, self._beats, self._clock = connections, beats, clock

    def start(self) -> None:
        """Show the others that this worker takes newcomers now."""
        self.beat()
        self._connections[self.index] = 0

    def beat(self) -> None:
        """Show the others that this worker lives; to be called several times a second."""
        self._beats[self.index] = self._clock()

    def stop(self) -> None:
        """Show the others that it takes none. It may go on to `add` and `remove`; nobody counts what it has."""
        self._connections[self.index] = _NOT_SERVING

    def add(self) -> None:
        """Count a connection."""
        self._connections[self.index] += 1

    def remove(self) -> None:
        """Count a connection no longer."""
        self._connections[self.index] -= 1

    @property
    def own(self) -> int:
        """The connections of this worker."""
        return self._connections[self.index]

    @property
    def others(self) -> Sequence[int]:
        """The connections of each other worker that lives and takes newcomers."""
        since = self._clock() - _SILENT_SECONDS
        return [
            connections
            for index, (connections, beat) in enumerate(zip(self._connections, self._beats, strict=True))
            if connections >= 0 and beat >= since and index != self.index
        ]

    @property
    def others_serve(self) -> bool:
        """Whether another worker takes newcomers, or will once it has started."""
        starting = (value == _STARTING for index, value in enumerate(self._connections) if index != self.index)
        return bool(self.others) or any(starting)


def _shared(size: int, kind: Literal["q", "d"]) -> "memoryview[Any]":
    """Return so many numbers of eight bytes, in memory that processes share after a fork."""
    return memoryview(mmap.mmap(-1, size * 8)).cast(kind)
