"""The listener's main loop: the forwarder's steps, and the waiting between them."""

import select
import time
from collections.abc import Iterable
from typing import Any

from app.core.heartbeat import HEARTBEAT_SECONDS
from app.core.liveness_file import LivenessFile
from listener.forwarder import Forwarder
from listener.metrics import ListenerMetrics


def run(forwarder: Forwarder, liveness: LivenessFile, metrics: ListenerMetrics) -> None:
    """Run the forwarder until it is done.

    Args:
        forwarder: does the work.
        liveness: shows the watchdog that the loop is running.
        metrics: are updated once a second.
    """
    metrics_due = 0.0
    poller = Poller()
    while not forwarder.is_done:
        liveness.touch()
        if (now := time.monotonic()) >= metrics_due:
            metrics_due = now + HEARTBEAT_SECONDS
            metrics.update(forwarder.status())
        if seconds := forwarder.step():
            poller.wait(forwarder.to_read, forwarder.to_write, seconds)
    forwarder.close()


class Poller:
    """Waits until something is readable or writable."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}  # by descriptor
        self._poll = select.poll()

    def wait(self, to_read: Iterable[Any], to_write: Iterable[Any], seconds: float) -> None:
        """Wait at most `seconds` for what has a descriptor; without any exactly so long."""
        events = dict.fromkeys(map(_descriptor, to_read), select.POLLIN)
        for descriptor in map(_descriptor, to_write):
            events[descriptor] = select.POLLOUT
        events.pop(-1, None)
        if events != self._events:
            for descriptor in self._events.keys() - events.keys():
                self._poll.unregister(descriptor)
            for descriptor, mask in events.items():
                self._poll.register(descriptor, mask)
            self._events = events
        self._poll.poll(seconds * 1000)


def _descriptor(what: Any) -> int:
    fileno = getattr(what, "fileno", None)
    return int(fileno()) if fileno else -1
