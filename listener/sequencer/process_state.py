"""What a listener process keeps over all its sessions."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from app.core.progress_timeout import TAKEOVER_TIMEOUT_SECONDS, ProgressTimeout
from listener.stats import ListenerStats


def fingerprint(database: str, channels: Iterable[str]) -> str:
    """A hash of what listeners must have in common to assign the same ids (rule 6)."""
    return hashlib.sha256("\0".join([database, *sorted(channels)]).encode()).hexdigest()[:16]


class BufferSize(NamedTuple):
    """How much is buffered, or may be."""

    events: int
    bytes: int


@dataclass
class ProcessState:
    """The settings, the counters and the highest epoch of a listener process; each session's sequencer shares them."""

    fingerprint: str
    limits: BufferSize  # the replay window may hold as many bytes again
    canary_interval: float  # seconds
    stats: ListenerStats
    rng: Random
    highest_epoch: int = 0  # ever seen: a new epoch must be above it (rule 5)
    draining: bool = False  # about to stop: the buffer is appended at once, whatever the role

    def saw_epoch(self, epoch: int) -> None:
        """Record an epoch, of which the stream or a begin shows that it exists."""
        self.highest_epoch = max(self.highest_epoch, epoch)

    def takeover_timeout(self) -> ProgressTimeout:
        """A new timeout for other listeners to act; it is jittered, so that two listeners don't begin at once."""
        return ProgressTimeout(TAKEOVER_TIMEOUT_SECONDS * self.rng.uniform(1.0, 1.3))
