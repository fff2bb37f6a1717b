"""What a listener process keeps over all its sessions."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from app.core.cluster import Cluster
from listener.stats import ListenerStats
from notifymux.progress_timeout import TAKEOVER_TIMEOUT_SECONDS, ProgressTimeout

# How far a begin may be ahead of the clock. It bounds what a stranger's message does to the ids, and is far more than
# the difference of any two clocks in use.
MAX_EPOCH_AHEAD_MS = 24 * 3600 * 1000
# How far it may be ahead of the highest epoch, if that is further ahead of the clock. A listener's begin is one above
# the highest that it knows, plus up to a second of jitter. Many messages of a stranger do not add up to much.
_MAX_EPOCH_STEP_MS = 10_000


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
    wall: Callable[[], float]  # the clock, Unix seconds
    highest_epoch: int = 0  # ever seen: a new epoch must be above it (rule 5)
    highest_cluster: Cluster | None = None  # of this process's PostgreSQL, on the highest timeline ever seen
    begins_beside: int = 0  # begun while the stream moved, since a marker was last found (rule 6)
    draining: bool = False  # about to stop: the buffer is appended at once, whatever the role

    def saw_epoch(self, epoch: int) -> None:
        """Record an epoch, of which the stream or a begin shows that it exists; one that no listener begins is not."""
        if self.is_plausible(epoch):
            self.highest_epoch = max(self.highest_epoch, epoch)

    def is_plausible(self, epoch: int) -> bool:
        """Whether a listener can have begun an epoch: it is not far ahead of the clock and of all that went before."""
        latest = max(int(self.wall() * 1000) + MAX_EPOCH_AHEAD_MS, self.highest_epoch + _MAX_EPOCH_STEP_MS)
        return 1 <= epoch <= latest

    def saw_cluster(self, cluster: Cluster) -> None:
        """Record a cluster, of which a session or the stream shows that a listener is connected to it."""
        highest = self.highest_cluster
        if highest is None or highest.system_identifier != cluster.system_identifier:
            self.highest_cluster = cluster
        else:
            self.highest_cluster = max(highest, cluster)

    def why_outdated(self, cluster: Cluster | None) -> str | None:
        """Why a session must not be used: a server of the same cluster was promoted after this one, if so."""
        highest = self.highest_cluster
        if cluster is None or highest is None or highest.system_identifier != cluster.system_identifier:
            return None
        if cluster.timeline >= highest.timeline:
            return None
        return (
            f"this PostgreSQL server is on the lower timeline {cluster.timeline}: another server of its cluster was "
            f"promoted to timeline {highest.timeline} and a listener is at work there; DB_HOST must lead to that one"
        )

    def takeover_timeout(self) -> ProgressTimeout:
        """A new timeout for other listeners to act; it is jittered, so that two listeners don't begin at once."""
        return ProgressTimeout(TAKEOVER_TIMEOUT_SECONDS * self.rng.uniform(1.0, 1.3))
