"""Listeners and workers: the product's state machines, driven by loops in which every wait is a separate step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.sources.sequence_tracker import Gap, SequenceTracker
from app.sources.sequence_tracker import StreamEvent as FollowedEntry
from listener.sequencer.active import Active
from listener.sequencer.aligning import Aligning, ReceivedNotification
from listener.sequencer.process_state import ProcessState
from listener.sequencer.redis_requests import (
    Answer,
    Append,
    AppendResult,
    CheckOtherListeners,
    ReadAfter,
    ReadEntry,
    ReadHead,
    ReadRecent,
    Request,
)
from listener.sequencer.sequencer import Sequencer
from listener.stats import ListenerStats
from notifymux.event import Event, EventId, decode
from tests.simulation.servers import CHANNEL, EXTRA_CHANNEL, Session, Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.world import World


class Listener:
    """Drives a `Sequencer` as `listener.forwarder` does, with every wait a separate step."""

    def __init__(self, world: World, name: str, *, extra: bool) -> None:
        self.world, self.name = world, name
        self.channels = frozenset([CHANNEL, EXTRA_CHANNEL] if extra else [CHANNEL])
        self.redis = world.redis
        self.running = True
        self.paused_until = self.starts_at = 0.0
        self.postgres_in = self.postgres_out = True  # the paths from and to PostgreSQL
        self.redis_path = "open"  # or "cut", or "deaf": the request is performed, but the answer is lost
        self.slow = False
        self.protected = False
        self._start()

    def _start(self) -> None:
        fingerprint = ",".join(sorted(self.channels))
        self.process = ProcessState(fingerprint, self.world.limits, 0.7, ListenerStats(), self.world.rng)
        self.earlier_self = self.redis.registry.get(self.name, 0.0)
        self.registered: float | None = None
        self.beat_due = 0.0
        self.sequencer: Sequencer | None = None
        self.session: Session | None = None
        self.request: Request | None = None
        self.answer: Answer | str | None = None

    def crash(self) -> None:
        if self.session:
            self.world.postgres.disconnect(self.session)
        self._start()
        self.starts_at = self.world.now + self.world.rng.choice([0.1, 1.0, 4.0])

    @property
    def active(self) -> Active | None:
        phase = self.sequencer.phase if self.sequencer else None
        return phase if isinstance(phase, Active) else None

    def step(self, now: float) -> None:
        if not self.running or now < self.starts_at or now < self.paused_until:
            return
        if self.slow and self.world.rng.random() < 0.8:
            return
        if self.request is not None:
            self._perform_request(now)
            return
        sequencer = self._connected()
        if sequencer is None:
            self._beat(now)
            return
        self._receive(sequencer, now)
        if sequencer.session_failure(now):
            self._lose_session()
            return
        while message := sequencer.to_postgres(now):
            assert self.session
            self.session.sent.append(message)
        self._beat(now)
        if self.redis_path == "cut" or not self.redis.up:
            sequencer.on_redis_failure()
            return
        self.request = sequencer.to_redis(now)
        if self.request and self.world.rng.random() < 0.7:
            self._perform_request(now)

    def _connected(self) -> Sequencer | None:
        if self.session and self.session.alive and self.sequencer:
            return self.sequencer
        self._lose_session()
        if not self.world.postgres_up or not self.postgres_in or not self.postgres_out:
            return None
        self.session = self.world.postgres.connect()
        self.sequencer = self.world.make_sequencer(self)
        return self.sequencer

    def _lose_session(self) -> None:
        if self.session:
            self.world.postgres.disconnect(self.session)
        self.session = self.sequencer = self.request = None

    def _receive(self, sequencer: Sequencer, now: float) -> None:
        assert self.session
        if not self.postgres_in:
            return
        queue = self.session.queue
        received = [queue.popleft() for _ in range(min(len(queue), self.world.rng.choice([1, 5, 100])))]
        if received:
            before = self._phase()
            sequencer.on_notifications(
                [ReceivedNotification(channel, payload.encode(), 0.0) for channel, payload in received], now
            )
            self._count_transition(before, "notifications")

    def _perform_request(self, now: float) -> None:
        """Perform the request in one step or two: a listener can be frozen, or crash, in between."""
        assert self.request is not None
        if self.answer is None:
            reached = self.redis.up and self.redis_path != "cut"
            self.answer = self._perform(self.request, now) if reached else "failed"
            if self.redis_path == "deaf":
                self.answer = "failed"
            if self.world.rng.random() < 0.3:
                return
        request, answer = self.request, self.answer
        self.request = self.answer = None
        if self.sequencer is None:
            return
        if answer == "failed":
            self.sequencer.on_redis_failure()
            return
        before = self._phase()
        self.sequencer.on_answer(request, None if answer == "nothing" else answer, now)  # type: ignore[arg-type]
        cause = type(request).__name__
        self._count_transition(before, f"{cause} {answer.status.value}" if isinstance(answer, AppendResult) else cause)

    def _perform(self, request: Request, now: float) -> Answer | str:
        redis = self.redis
        match request:
            case ReadHead():
                return redis.head or "nothing"
            case CheckOtherListeners():
                return self._shows_others(now)
            case ReadAfter(after, limit):
                return redis.after(after, limit)
            case ReadRecent(limit):
                return redis.entries[: -limit - 1 : -1]
            case ReadEntry(at):
                found = redis.after(EventId(at.epoch, at.sequence - 1), 1)
                return found[0].text if found and found[0].id == at else "nothing"
            case Append():
                self.world.check_identities(request)
                return redis.append(request)

    def _shows_others(self, now: float) -> bool:
        """As `listener.registry` does."""
        if self.registered is None or self.name not in self.redis.registry:
            self.registered = self.redis.registry[self.name] = now
            return True
        others = {name: at for name, at in self.redis.registry.items() if name != self.name}
        if not others:
            return now - self.registered < 2
        latest = max([*others.values(), self.earlier_self])
        return any(latest - at < 5 for at in others.values())

    def _beat(self, now: float) -> None:
        if now >= self.beat_due and self.redis.up and self.redis_path != "cut":
            self.beat_due = now + 1.0
            if self.name not in self.redis.registry:
                self.registered = now
            self.redis.registry[self.name] = now

    def _phase(self) -> str:
        phase = self.sequencer.phase if self.sequencer else None
        if isinstance(phase, Active):
            return phase.role.value + ("/gap" if phase.gap and not phase.gap.is_probed else "")
        if isinstance(phase, Aligning) and phase._marker:
            return "searching" if phase.marker_received else "marked"
        return "new"

    def _count_transition(self, before: str, cause: str) -> None:
        after = self._phase()
        self.world.transitions[f"{before} -> {after} on {cause}" if before != after else f"{before} on {cause}"] += 1


class Worker:
    """Drives a `SequenceTracker` as `app.sources.redis` does, and checks what it delivers."""

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
        if not self.redis.up:
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
        entries = [FollowedEntry(entry.id, decode(entry.text)) for entry in found]
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
