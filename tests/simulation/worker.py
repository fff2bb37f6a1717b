"""A worker: the product's `SequenceTracker` and `FeedFollower`, driven as `app.sources.redis` does, and the checks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.sources.feed_follower import FeedFollower
from notifymux.event import Event, EventId, decode
from notifymux.sequence_tracker import Gap, GapReason, SequenceTracker, StreamEvent
from tests.simulation.postgres import CHANNEL
from tests.simulation.violation import Violation

MAX_BEHIND_SECONDS = 1.5
MAX_MUTE_SECONDS = 6.0

NO_READS = {"LOADING", "BUSY"}  # refusals that concern workers too

if TYPE_CHECKING:
    from tests.simulation.listener import Listener, SimulatedConnection
    from tests.simulation.world import World


class Worker:
    """One worker.

    Args:
        world: where it is.
        listener: of its pod, whose feed it hears; None if there is none.
    """

    def __init__(self, world: World, listener: Listener | None) -> None:
        self.world, self.listener = world, listener
        self.redis = world.redis
        self.paused_until = 0.0
        self.start()

    def start(self) -> None:
        """Start, or start again, without anything of before."""
        if self.listener:
            self.listener.feed.close()
        self.tracker = SequenceTracker()
        self.follower = FeedFollower(self.tracker)
        self.feed: SimulatedConnection | None = None
        self.looked_at = 0.0
        self.heads: deque[tuple[float, EventId]] = deque()
        self.mute_since: float | None = None
        self.heard_until = 0
        self.heard_at = 0.0
        self.connected = self.subscribed = False
        self.last: int | None = None  # the last event delivered
        self.excused = True  # a gap was announced since
        self.gaps = 0

    def reconnect(self) -> None:
        self.heads.clear()
        self.connected = self.subscribed = False
        self.tracker.interrupted()
        self.follower.redis_failed(self.world.now)

    def step(self, now: float) -> None:
        if now < self.paused_until:
            self.heads.clear()
            return
        self._hear_feed(now)
        if not self.redis.up or self.redis.refusal in NO_READS:
            self.reconnect()
            return
        self.connected = True
        if self.follower.is_followed:
            self.subscribed = False
            self._look(now)
        elif not self.subscribed:
            self.subscribed, self.heard_until, self.heard_at = True, len(self.redis.published), now
            self.tracker.request_read()
        if self.subscribed:
            self._hear(now)
            if now - self.heard_at > 4:
                self.heard_at = now
                self.tracker.request_read()
        if self.tracker.is_read_due(now):
            self._read(now)
        self._check_feed(now)

    def _check_feed(self, now: float) -> None:
        """A feed is not followed that does not bring for long what the stream has, to a worker that reads all of it."""
        position = self.tracker.position
        if not self.follower.is_followed or position is None or (self.feed and self.feed.lines):
            self.heads.clear()
            return
        head = self.redis.head
        if head is None or (self.heads and head < self.heads[-1][1]):
            self.heads.clear()  # the stream was lost, so it shows nothing until it is restored
            return
        self.heads.append((now, head))
        while len(self.heads) > 1 and now - self.heads[1][0] > MAX_BEHIND_SECONDS:
            self.heads.popleft()
        at, head = self.heads[0]
        if now - at > MAX_BEHIND_SECONDS and position < head:
            raise Violation(f"a worker follows a feed at {position} although the stream was at {head} long ago")

    def _check_mute(self, now: float) -> None:
        """What the feed brings is delivered in the end, also where Redis is away."""
        fed, position = self.follower._fed, self.tracker.position
        if self.redis.up or fed is None or position is None or fed <= position:
            self.mute_since = None
        elif self.mute_since is None:
            self.mute_since = now
        elif now - self.mute_since > MAX_MUTE_SECONDS:
            raise Violation(f"a worker at {position} does not deliver what is fed at {fed}")

    def _hear_feed(self, now: float) -> None:
        listener = self.listener
        if self.feed is None:
            if listener and listener.running and now >= listener.starts_at and self.follower.is_wanted(now):
                self.feed = listener.feed.connect(self.follower.connected())
            return
        count = self.world.rng.choice([1, 5, 100])
        lines, self.feed.lines = self.feed.lines[:count], self.feed.lines[count:]
        if lines:
            before = self.tracker.position
            self._take(self.follower.received(lines, now), before)
            self._check_mute(now)
        elif not self.feed.is_open:
            self.feed = None
            self.follower.lost()

    def _look(self, now: float) -> None:
        if now - self.looked_at >= self.follower.look_seconds:
            self.looked_at = now
            self.follower.looked(self.redis.head, has_read_all=self.feed is None or not self.feed.lines)

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
        self.follower.redis_answered()
        if len(found) == 50:
            self.tracker.request_read()

    def _take(self, outcomes: Sequence[Event | Gap], before: EventId | None) -> None:
        self.follower.delivered([outcome for outcome in outcomes if isinstance(outcome, Event)])
        for outcome in outcomes:
            if isinstance(outcome, Gap):
                self.excused = True
                self.gaps += 1
                if outcome.why is GapReason.STREAM_LOST and len(self.world.masters) > 1:
                    # The other master has events of an epoch in which a worker that was restarted never was.
                    self.last = None
                    continue
                if self.last is not None:  # it has heard something that may be missing now
                    self.world.gap_announced(outcome, before)
            else:
                self.world.check_identity(outcome)
                if outcome.channel == CHANNEL:
                    self._deliver(int(bytes(outcome.payload)))

    def _deliver(self, number: int) -> None:
        if self.world.checks_identities:
            self._check_order(number)
        self.last, self.excused = number, False

    def _check_order(self, number: int) -> None:
        if self.last is not None and number <= self.last:
            raise Violation(f"event {number} was delivered after {self.last}: twice or out of order")
        if not self.excused and self.last is not None and self.world.between(self.last, number):
            raise Violation(f"events between {self.last} and {number} are missing and no gap was announced")
