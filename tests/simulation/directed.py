"""Schedules of the small world that are written out, for faults that random schedules seldom combine."""

from listener.sequencer.control_messages import Begin, ControlMessage
from tests.simulation.listener import Listener
from tests.simulation.postgres import CHANNEL
from tests.simulation.small_world import SmallWorld
from tests.simulation.violation import Violation

SCHEDULES = [
    "PostgreSQL fails over, wait",  # while a listener stays with the old primary
    "commit, A, worker hears nothing, Redis wiped, commit, wait",  # the worker needs what is restored
    "A crashes, Redis wiped, wait",
    "commits stall, commit, commit, wait",
    "A frozen, commit, A loses its session, wait",
]


def run_directed() -> None:
    """Run them all."""
    for schedule in SCHEDULES:
        world = SmallWorld(faults=2)
        for name in schedule.split(", "):
            world.actions()[name]()
        world.finish()
    restore_what_was_there_before()
    restore_what_an_older_copy_lacks()
    start_from_the_feed_without_redis()
    read_what_the_feed_has_no_more()
    feed_no_epoch_that_the_stream_does_not_know()
    follow_an_epoch_that_begins_below()
    wait_for_an_epoch_that_comes_back()
    wait_for_an_epoch_that_comes_back(rounds_without_redis=20)


def follow_an_epoch_that_begins_below() -> None:
    """PostgreSQL's clock falls back, every listener ends, and Redis is wiped: the next epoch is the lower one."""
    world = SmallWorld(faults=0)
    world.pass_rounds(2)
    assert world.redis.head
    before = world.redis.head.epoch
    world.postgres.clock_ms -= 900_000
    for listener in world.listeners:
        listener.crash(for_seconds=0.1)
    world.redis.wipe()
    world.finish()
    if world.redis.head.epoch >= before:
        raise Violation("the epoch is not below the one before")


def wait_for_an_epoch_that_comes_back(rounds_without_redis: int = 0) -> None:
    """Redis falls back to a copy of an earlier epoch; the worker was started in the later one, which is restored.

    Redis may be away between the worker's look and the restoring: nobody could do anything meanwhile.
    """
    world = SmallWorld(faults=0)
    worker = world.workers[0]
    worker.listener = None  # it is in a pod without one
    world.pass_rounds(2)
    before = world.redis.copy(len(world.redis.entries))
    assert before.head
    for listener in world.listeners:
        listener.crash(for_seconds=0.1)
    world.pass_rounds(1)
    for _ in range(50):
        if world.redis.head and world.redis.head.epoch > before.head.epoch:
            break
        world.pass_rounds(1)
    worker.start()
    world.pass_rounds(2)
    if worker.tracker.position is None or worker.tracker.position.epoch == before.head.epoch:
        raise Violation("no epoch has begun")
    gaps = worker.gaps
    world.move_all(before)
    worker.reconnect()
    worker.step(world.now)
    if rounds_without_redis:
        world.redis.up = False
        world.pass_rounds(rounds_without_redis)
        world.redis.up = True
        worker.step(world.now)
    world.finish()
    if worker.gaps > gaps:
        raise Violation("a gap was announced although the epoch was restored in time")


def restore_what_was_there_before() -> None:
    """A listener restores events that another one appended before it was there."""
    world = SmallWorld(faults=0)
    (a, b), worker = world.listeners, world.workers[0]
    worker.listener = None  # what it is fed would not show whether the stream has everything
    worker.start()
    world.pass_rounds(2)
    world.actions()["commit"]()
    world.pass_rounds(2)
    world.calm, worker.paused_until = True, world.now + 1000
    world.actions()["commit"]()
    world.pass_rounds(2)
    b.crash(for_seconds=0.1)
    world.pass_rounds(10)
    a.paused_until, worker.paused_until = world.now + 1000, 0.0
    worker.heard_until = len(world.redis.published)  # nor has it heard what was published meanwhile
    world.redis.wipe()
    world.pass_rounds(12)
    world.finish()


def restore_what_an_older_copy_lacks() -> None:
    """A primary goes on to append after a fail-over to a replica that lagged: what is missing before is put back."""
    world = SmallWorld(faults=0)
    worker = world.workers[0]
    worker.listener = None
    worker.start()
    world.pass_rounds(2)
    copy = world.redis.copy(len(world.redis.entries))
    world.calm, worker.paused_until = True, world.now + 1000
    for _ in range(2):
        world.actions()["commit"]()
    world.pass_rounds(2)
    world.move_all(copy)
    worker.paused_until = 0.0
    world.actions()["commit"]()
    world.finish()
    if worker.gaps:
        raise Violation("a gap was announced although the primary has what is missing")


def start_from_the_feed_without_redis() -> None:
    """A worker that starts while Redis is away delivers what it is fed."""
    world = SmallWorld(faults=0)
    worker = world.workers[0]
    world.redis.up = False
    worker.start()
    world.pass_rounds(12)
    world.actions()["commit"]()
    world.pass_rounds(2)
    if worker.last != world.postgres.committed:
        raise Violation(f"a worker without Redis delivered {worker.last} last")
    world.redis.up = True
    world.finish()


def read_what_the_feed_has_no_more() -> None:
    """A worker is frozen while more is committed than the listener remembers; the stream has it."""
    world = SmallWorld(faults=0)
    worker = world.workers[0]
    world.pass_rounds(4)
    gaps, worker.paused_until = worker.gaps, world.now + 1000
    for _ in range(6):
        for _ in range(300):
            world.postgres.commit_event(CHANNEL, world.now)
        world.pass_rounds(2)
    worker.paused_until = 0.0
    world.finish()
    if worker.gaps > gaps:
        raise Violation("a gap was announced although the stream has what the feed has no more")


def feed_no_epoch_that_the_stream_does_not_know() -> None:
    """A listener begins an epoch, and ends before Redis has it; another one begins an epoch of the same number."""
    world = SmallWorld(faults=0)
    (a, b), worker = world.listeners, world.workers[0]
    b.crash(for_seconds=1000)
    a.crash(for_seconds=0.1)
    check_sent, clock_ms = Listener.check_sent, 0

    def cut_after_begin(listener: Listener, message: ControlMessage) -> None:
        nonlocal clock_ms
        check_sent(listener, message)
        if isinstance(message, Begin) and listener is a and world.redis.up:
            world.redis.up, clock_ms = False, world.postgres.clock_ms

    Listener.check_sent = cut_after_begin  # type: ignore[method-assign, assignment]
    try:
        while world.redis.up:
            world.pass_rounds(1)
    finally:
        Listener.check_sent = check_sent  # type: ignore[method-assign]
    world.pass_rounds(10)
    world.postgres.commit_event(CHANNEL, world.now)
    world.pass_rounds(2)
    if a.active is None or world.redis.head is None or a.active.epoch == world.redis.head.epoch:
        raise Violation("the listener has not begun an epoch")
    if worker.tracker.position and worker.tracker.position.epoch == a.active.epoch:
        raise Violation(f"a worker is at {worker.tracker.position}, an epoch that the stream does not know")
    world.finish()
