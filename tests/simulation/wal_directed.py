"""Schedules of a small world whose listeners read the WAL, for faults that random schedules seldom combine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from listener.sequencer.control_messages import Begin, ControlMessage
from listener.sequencer.event_window import EventWindow
from listener.sequencer.process_state import BufferSize
from listener.sequencer.redis_requests import Append, AppendResult
from notifymux.event import MUX_CHANNEL, EventId
from tests.simulation.listener import Listener
from tests.simulation.postgres import CHANNEL, EXTRA_CHANNEL
from tests.simulation.small_world import LONG_WAIT, ROUND_SECONDS, SmallWorld
from tests.simulation.violation import Violation
from tests.simulation.wal_postgres import WalPostgres
from tests.simulation.wal_world import WalListener, WalWorld

MAX_ROUNDS = 200  # in which everything that is waited for happens


class SmallWalWorld(SmallWorld, WalWorld):
    """Two listeners, of which the first reads the slot and feeds a worker; nothing is random, and no gap may come."""

    def __init__(self) -> None:
        super().__init__(faults=0)
        self.calm = True
        self.commits_left = 0

    @staticmethod
    def _is_ready(listener: Listener) -> bool:
        return listener.active is not None or bool(listener.waits_for)

    def pass_rounds(self, rounds: int) -> None:
        """Let time pass, in which everybody acts."""
        for _ in range(rounds):
            super().pass_rounds(1)
            self.check_passed()

    def wait_until(self, is_so: Callable[[], object]) -> None:
        """Let time pass until something is so."""
        for _ in range(MAX_ROUNDS):
            if is_so():
                return
            self.pass_rounds(1)
        raise Violation(f"nothing happens for {MAX_ROUNDS} rounds")

    def commit(self, count: int) -> None:
        """Users commit."""
        for _ in range(count):
            self.postgres.commit_event(CHANNEL, self.now)

    @property
    def reader(self) -> Listener:
        """The listener that reads the slot."""
        return next(listener for listener in self.listeners if listener.active)

    def fall_back(self, entries: int) -> None:
        """Redis comes back without its last entries."""
        self.move_all(self.redis.copy(len(self.redis.entries) - entries))


def _nothing_before_it_is_seen(world: SmallWalWorld) -> None:
    """W1: the synchronous standby is away, while another commit, which does not wait for it, is seen."""
    world.postgres.standby_away = True
    world.commit(3)
    world.pass_rounds(8)
    world.postgres.standby_away = False
    world.pass_rounds(3)


def _many_are_not_seen(world: SmallWalWorld) -> None:
    """W1, W10: more than half of the buffer waits until queries see it; then it goes on."""
    world.limits = world.reader.process.limits = BufferSize(20, 1 << 20)
    world.postgres.standby_away = True
    world.commit(40)
    world.pass_rounds(20)
    world.postgres.standby_away = False


def _redis_falls_back_with_its_reader(world: SmallWalWorld) -> None:
    """W2: the reader dies, and Redis comes back without the last second."""
    world.pass_rounds(10)
    world.commit(5)
    world.pass_rounds(2)
    world.fall_back(6)
    world.reader.crash(for_seconds=1000)


def _nobody_reads_the_slot(world: SmallWalWorld) -> None:
    """Every listener ends, for longer than a worker waits for what is missing."""
    for listener in world.listeners:
        listener.crash(for_seconds=15)
        listener.redis_path = "open"
    world.pass_rounds(3 * LONG_WAIT)
    world.wait_until(lambda: any(listener.active for listener in world.listeners))


def _nobody_appends_what_was_fed(world: SmallWalWorld) -> None:
    """Rule 13: a worker is fed what is not in the stream, and for a long time nobody reads the slot."""
    worker = world.workers[0]
    world.reader.redis_path = "cut"
    world.commit(5)
    world.wait_until(lambda: worker.last == world.postgres.committed)
    _nobody_reads_the_slot(world)


def _redis_falls_back_while_nobody_reads(world: SmallWalWorld) -> None:
    """Rule 13: Redis comes back without the last second, and for a long time nobody reads the slot."""
    world.pass_rounds(10)
    world.commit(5)
    world.pass_rounds(2)
    world.fall_back(6)
    _nobody_reads_the_slot(world)


def _redis_falls_back_over_a_begin(world: SmallWalWorld) -> None:
    """Rule 13: Redis comes back with the epoch before, from which on the slot sends everything again."""
    world.pass_rounds(10)
    world.calm = False
    before, worker, gaps = world.redis.copy(len(world.redis.entries)), world.workers[0], world.workers[0].gaps
    a, b = world.listeners
    a.crash(for_seconds=1000)
    world.redis.wipe()
    world.wait_until(lambda: b.active)
    world.commit(3)
    world.wait_until(lambda: worker.last == world.postgres.committed)
    if worker.gaps != gaps + 1:
        raise Violation("the begin of an epoch is no gap")
    world.calm = True
    world.move_all(before)
    _nobody_reads_the_slot(world)


def _a_reader_without_redis_confirms_nothing(world: SmallWalWorld) -> None:
    """W2: Redis falls back by less than the trail, its reader does not hear of it for longer, and dies."""
    world.pass_rounds(10)
    world.commit(5)
    world.pass_rounds(1)
    reader = world.reader
    reader.redis_path = "cut"
    world.fall_back(5)
    world.workers[0].start()
    world.pass_rounds(8)
    reader.crash(for_seconds=1000)


def _a_reader_confirms_nothing_by_a_late_answer(world: SmallWalWorld) -> None:
    """W2: an append is answered, the reader is frozen before it takes the answer, and Redis falls back meanwhile."""
    world.pass_rounds(10)
    world.commit(5)
    world.pass_rounds(1)
    reader, appended = world.reader, world.redis.append
    world.commit(1)

    def freeze(request: Any) -> Any:
        answer = appended(request)
        reader.paused_until = world.now + 4
        return answer

    world.redis.append = freeze  # type: ignore[method-assign]
    world.wait_until(lambda: reader.paused_until > world.now)
    world.fall_back(6)
    world.workers[0].start()
    world.workers[1:] = []
    while world.now < reader.paused_until:
        world.pass_rounds(1)
    reader.step(world.now)
    reader.crash(for_seconds=1000)


def _redis_is_wiped(world: SmallWalWorld) -> None:
    """W3: the reader lives, and puts back what it remembers, though the slot has forgotten most of it."""
    for _ in range(4):
        world.commit(3)
        world.pass_rounds(4)
    world.redis.wipe()
    world.commit(2)


def _redis_is_away_until_the_buffer_is_half_full(world: SmallWalWorld) -> None:
    """W3, W10: Redis comes back older, and the reader has no room for the canary by which it would ask for begins."""
    world.limits = world.reader.process.limits = BufferSize(40, 1 << 20)
    world.commit(3)
    world.pass_rounds(1)
    world.redis.up = False
    world.workers[0].start()
    for _ in range(8):
        world.commit(50)
        world.pass_rounds(1)
    world.fall_back(2)
    world.redis.up = True


def _the_slot_has_what_the_reader_forgot(world: SmallWalWorld) -> None:
    """W3: a reader that has just begun finds that Redis fell back since it read the head."""
    world.pass_rounds(10)
    world.commit(5)
    world.pass_rounds(2)
    world.reader.crash(for_seconds=1000)
    newcomer = world.listeners[1]
    world.wait_until(lambda: newcomer.active and newcomer.active.replay_window)
    active = newcomer.active
    assert active
    active.replay_window = EventWindow(active.buffer.first)
    world.fall_back(2)


@contextmanager
def _before_a_begin(do: Callable[[Begin], None]) -> Iterator[None]:
    """Have something done whenever a reader sends a begin, before it arrives."""
    check_sent = WalListener.check_sent

    def check(listener: WalListener, message: ControlMessage) -> None:
        check_sent(listener, message)
        if isinstance(message, Begin):
            do(message)

    WalListener.check_sent = check  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        WalListener.check_sent = check_sent  # type: ignore[method-assign]


def _a_begin_after_a_higher_one(world: SmallWalWorld) -> None:
    """A reader dies when its begin is in the WAL, and the clock falls back; the next one has to exceed it."""
    world.calm = False
    for listener in world.listeners:
        listener.crash(for_seconds=0.1)
    world.redis.wipe()
    begun = len(world.postgres.begun)
    world.wait_until(lambda: len(world.postgres.begun) > begun)
    world.postgres.clock_ms -= 600_000
    for listener in world.listeners:
        listener.crash(for_seconds=0.1)
    world.redis.wipe()


def _a_frozen_reader_appends_to_anothers_epoch(world: SmallWalWorld) -> None:
    """W3: two epochs of one number; what the reader of the first one was about to append comes in the second."""
    world.pass_rounds(10)
    (a, b), appended = world.listeners, world.redis.append
    world.calm = world.checks_identities = False
    first = world.redis.entries[-1].id
    clock_ms: int | None = None
    a.redis_path = "cut"
    world.commit(30)
    world.pass_rounds(2)

    def the_same_number(begin: Begin) -> None:
        nonlocal clock_ms
        world.postgres.clock_ms = clock_ms = first.epoch - begin.jitter

    def append_later(request: Append) -> AppendResult:
        world.redis.append = appended  # type: ignore[method-assign]
        world.redis.wipe()
        b.crash(for_seconds=0.1)
        for _ in range(4 * LONG_WAIT):
            if clock_ms is not None:  # it stands still until the begin has arrived, in this round or in the next
                world.postgres.clock_ms = clock_ms - int(ROUND_SECONDS * 1000)
            world.pass_rounds(1)
        if b.active is None or b.active.epoch != first.epoch or world.redis.head not in request_ids(request):
            raise Violation(f"the second epoch is not that of {first}, or the stream is at {world.redis.head}")
        return appended(request)

    world.redis.append = append_later  # type: ignore[method-assign]
    a.redis_path = "open"
    with _before_a_begin(the_same_number):
        world.wait_until(lambda: world.redis.append is not append_later)


def request_ids(request: Append) -> list[EventId]:
    """The ids under which an append adds events."""
    epoch, first = request.first
    return [EventId(epoch, first + offset) for offset in range(len(request.texts))]


def _promoted_without_a_tail(world: SmallWalWorld) -> None:
    """W4: the new timeline goes on before the stream's last event, and has the same text at the same place."""
    world.pass_rounds(10)
    reader, old = world.reader, world.postgres
    kept, lsn = len(old.wal), old.lsn
    world.commit(1)
    old.notify(MUX_CHANNEL, "{}", world.now)
    for _ in range(MAX_ROUNDS):
        if b'"payload":{}' in world.redis.entries[-1].text:
            break
        reader.transmit()
        reader.step(world.now)
    world.calm = False
    world.postgres = _promote(world, kept, lsn)
    old.up = False
    old.shut_down()
    world.commit(1)
    world.postgres.notify(MUX_CHANNEL, "{}", world.now)


def _the_server_is_put_back(world: SmallWalWorld) -> None:
    """W2: a copy that is older than the stream runs on the same timeline, without the slot."""
    world.pass_rounds(10)
    old = world.postgres
    kept, lsn = len(old.wal), old.lsn
    old.lsn += 1 << 40
    world.commit(3)
    world.pass_rounds(3)
    world.calm = False
    world.postgres = _promote(world, kept, lsn)
    world.postgres.cluster, world.postgres.slot = old.cluster, None
    old.up = False
    old.shut_down()
    world.pass_rounds(3)


def _a_lower_timeline_lives_on(world: SmallWalWorld) -> None:
    """W4: one reader is at the new primary, and the other one finds the old one again."""
    world.pass_rounds(10)
    world.calm = False
    (a, b), old = world.listeners, world.postgres
    world.postgres = _promote(world, len(old.wal), old.lsn)
    world.old_servers.append(old)
    b.crash(for_seconds=0.1)
    world.wait_until(lambda: b.active)
    world.address = "old"
    world.pass_rounds(4 * LONG_WAIT)
    if a.active or not b.active or world.redis.entries[-1].id.epoch != b.active.epoch:
        raise Violation("the reader of a lower timeline begins an epoch")


def _promote(world: SmallWalWorld, kept: int, lsn: int) -> WalPostgres:
    """A standby that is promoted, without the commits after some, and with the slot."""
    old = world.postgres
    promoted = old.promote()
    promoted.wal, promoted.lsn = old.wal[:kept], lsn
    slot = promoted.prepare_slot()
    slot.confirmed = slot.saved = old.slot.saved if old.slot else 0
    return promoted


def _a_snapshot_is_cancelled_after_a_begin(world: SmallWalWorld) -> None:
    """W5: the slot is made anew; the begin waits behind a commit that no query sees, and is not sent again."""
    world.pass_rounds(10)
    world.calm = False
    begun = len(world.postgres.begun)

    def hold_up(_: Begin) -> None:
        world.postgres.standby_away = True
        world.commit(1)

    world.postgres.invalidate()
    for listener in world.listeners:
        listener.crash(for_seconds=0.1)
    for listener in world.listeners:
        listener.process.canary_interval = 100  # so that the begin is the message before the snapshots
    with _before_a_begin(hold_up):
        world.wait_until(lambda: len(world.postgres.begun) > begun)
    for _ in range(20):
        world.now += 0.1
        for backend in world.postgres.backends:
            world.postgres.cancel(backend)
        for listener in world.listeners:
            listener.step(world.now)
            listener.transmit()
    for listener in world.listeners:
        listener.process.canary_interval = 0.7
    world.postgres.standby_away = False


def _an_older_stream_before_a_begin(world: SmallWalWorld) -> None:
    """W5: an epoch began because Redis was empty, and then the Redis of before comes back."""
    world.pass_rounds(10)
    world.calm = False
    before = world.redis.copy(len(world.redis.entries))
    a, b = world.listeners
    a.crash(for_seconds=1000)
    world.redis.wipe()
    world.wait_until(lambda: b.active)
    world.commit(3)
    world.pass_rounds(3)
    b.crash(for_seconds=0.1)
    world.move_all(before)


def _the_server_decodes_for_long(world: SmallWalWorld) -> None:
    """W9: every new reader hears nothing for ten seconds, since the server decodes a large transaction."""
    world.pass_rounds(10)
    world.postgres.decodes_for = 10.0
    for listener in world.listeners:
        listener.crash(for_seconds=0.1)
    world.commit(3)
    world.wait_until(lambda: any(listener.active for listener in world.listeners))


def _readers_of_other_channels_take_turns(world: SmallWalWorld) -> None:
    """W6: one reads a channel more, and what it appends is lost to Redis before the other one is back."""
    a, b = world.listeners
    b.channels |= {EXTRA_CHANNEL}
    b.crash(for_seconds=0.1)
    world.pass_rounds(10)
    world.calm = False
    a.crash(for_seconds=1000)
    kept = len(world.redis.entries)
    world.postgres.commit_event(EXTRA_CHANNEL, world.now)
    world.commit(2)
    world.wait_until(lambda: b.active)
    world.pass_rounds(2)
    world.workers[0].start()
    b.crash(for_seconds=1000)
    a.starts_at = world.now
    world.move_all(world.redis.copy(kept))


SCHEDULES = [
    _nothing_before_it_is_seen,
    _many_are_not_seen,
    _a_snapshot_is_cancelled_after_a_begin,
    _redis_falls_back_with_its_reader,
    _nobody_appends_what_was_fed,
    _redis_falls_back_while_nobody_reads,
    _redis_falls_back_over_a_begin,
    _a_reader_without_redis_confirms_nothing,
    _a_reader_confirms_nothing_by_a_late_answer,
    _redis_is_wiped,
    _redis_is_away_until_the_buffer_is_half_full,
    _the_slot_has_what_the_reader_forgot,
    _a_frozen_reader_appends_to_anothers_epoch,
    _promoted_without_a_tail,
    _the_server_is_put_back,
    _a_lower_timeline_lives_on,
    _a_begin_after_a_higher_one,
    _an_older_stream_before_a_begin,
    _the_server_decodes_for_long,
    _readers_of_other_channels_take_turns,
]


def run_directed() -> None:
    """Run them all."""
    for schedule in SCHEDULES:
        world = SmallWalWorld()
        schedule(world)
        world.finish()
