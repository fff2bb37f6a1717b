"""A worker: the product's `SequenceTracker`, driven as `app.sources.redis` does, and the checks of what it delivers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.sources.sequence_tracker import Gap, SequenceTracker, StreamEvent
from notifymux.event import Event, EventId, decode
from tests.simulation.postgres import CHANNEL
from tests.simulation.violation import Violation

NO_READS = {"LOADING", "BUSY"}  # refusals that concern workers too

if TYPE_CHECKING:
    from tests.simulation.world import World


class Worker:
    """One worker."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.redis = world.redis
        self.tracker = SequenceTracker()
        self.heard_until = 0
        self.heard_at = 0.0
        self.connected = False
        self.paused_until = 0.0
        self.last: int | None = None  # the last event delivered
        self.excused = True  # a gap was announced since
        self.gaps = 0

    def reconnect(self) -> None:
        self.connected = False
        self.tracker.interrupted()

    def step(self, now: float) -> None:
        if now < self.paused_until:
            return
        if not self.redis.up or self.redis.refusal in NO_READS:
            self.reconnect()
            return
        if not self.connected:
            self.connected, self.heard_until = True, len(self.redis.published)
            self.tracker.request_read()
        self._hear(now)
        if now - self.heard_at > 4:
            self.heard_at = now
            self.tracker.request_read()
        if self.tracker.is_read_due(now):
            self._read(now)

    def _hear(self, now: float) -> None:
        published = self.redis.published
        until = min(len(published), self.heard_until + self.world.rng.choice([1, 5, 100]))
        heard = [text for text in published[self.heard_until : until] if self.world.rng.random() >= self.world.drops]
        while heard:
            self.heard_at = now
            before = self.tracker.position
            burst = self.world.rng.choice([1, 1, 3, 100])
            self._take(self.tracker.on_published([decode(text) for text in heard[:burst]]), before)
            heard = heard[burst:]
        self.heard_until = until

    def _read(self, now: float) -> None:
        if self.tracker.position is None:
            self.tracker.start(self.redis.head)
        assert self.tracker.position is not None
        found = self.redis.after(self.tracker.position, 50)
        entries = [StreamEvent(entry.id, decode(entry.text)) for entry in found]
        before = self.tracker.position
        self._take(self.tracker.read(entries, self.redis.head, now), before)
        if len(found) == 50:
            self.tracker.request_read()

    def _take(self, outcomes: Sequence[Event | Gap], before: EventId | None) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Gap):
                self.excused = True
                self.gaps += 1
                self.world.gap_announced(outcome, before)
            else:
                self.world.check_identity(outcome)
                if outcome.channel == CHANNEL:
                    self._deliver(int(bytes(outcome.payload)))

    def _deliver(self, number: int) -> None:
        if self.last is not None and number <= self.last:
            raise Violation(f"event {number} was delivered after {self.last}: twice or out of order")
        if not self.excused and self.last is not None and self.world.between(self.last, number):
            raise Violation(f"events between {self.last} and {number} are missing and no gap was announced")
        self.last, self.excused = number, False
