"""Schedules of the small world that are written out, for faults that random schedules seldom combine."""

from tests.simulation.small_world import SmallWorld

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


def restore_what_was_there_before() -> None:
    """A listener restores events that another one appended before it was there."""
    world = SmallWorld(faults=0)
    (a, b), worker = world.listeners, world.workers[0]
    world.calm, worker.paused_until = True, world.now + 1000
    world.actions()["commit"]()
    world.pass_rounds(2)
    b.crash(for_seconds=0.1)
    world.pass_rounds(8)
    a.paused_until, worker.paused_until = world.now + 1000, 0.0
    world.redis.wipe()
    world.pass_rounds(12)
    world.finish()
