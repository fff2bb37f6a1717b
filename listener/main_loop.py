"""The listener's main loop: the forwarder's steps, and the waiting between them."""

import select
import time

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
    while not forwarder.is_done:
        liveness.touch()
        if (now := time.monotonic()) >= metrics_due:
            metrics_due = now + HEARTBEAT_SECONDS
            metrics.update(forwarder.status())
        _wait(forwarder, forwarder.step())
    forwarder.close()


def _wait(forwarder: Forwarder, seconds: float) -> None:
    """Wait until the session is readable, at most `seconds`; not at all for 0."""
    if seconds == 0.0:
        return
    if forwarder.session is None:
        time.sleep(seconds)
        return
    poll = select.poll()
    poll.register(forwarder.session, select.POLLIN)
    poll.poll(seconds * 1000)
