"""The listener's main loop: the forwarder's steps, and the waiting between them."""

import select
import time

from app.core.heartbeat import HEARTBEAT_SECONDS
from app.core.liveness_file import LivenessFile
from listener.environment import Session
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
    readable = Readable()
    while not forwarder.is_done:
        liveness.touch()
        if (now := time.monotonic()) >= metrics_due:
            metrics_due = now + HEARTBEAT_SECONDS
            metrics.update(forwarder.status())
        if seconds := forwarder.step():
            readable.wait(forwarder.session, seconds)
    forwarder.close()


class Readable:
    """Waits until a session is readable."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._poll = select.poll()

    def wait(self, session: Session | None, seconds: float) -> None:
        """Wait at most `seconds`; without a session exactly so long."""
        if session is not self._session:
            self._session, self._poll = session, select.poll()
            if session is not None:
                self._poll.register(session, select.POLLIN)
        self._poll.poll(seconds * 1000)
