"""Random schedules of faults. `python -m tests.simulation` runs more of them."""

import logging
from types import ModuleType

import pytest

from app.core.listen_session import Notification
from listener.sequencer.active import Active, Role
from tests.simulation import directed, reserves_directed, wal_directed
from tests.simulation.postgres import CHANNEL, Backend
from tests.simulation.schedules import simulate
from tests.simulation.world import World


def test_no_schedule_of_faults_breaks_a_guarantee() -> None:
    simulate(0, 100)


def test_no_schedule_of_faults_breaks_a_guarantee_while_the_listeners_read_the_wal() -> None:
    simulate(0, 100, "wal")


@pytest.mark.parametrize("schedules", [directed, wal_directed, reserves_directed])
def test_no_schedule_that_is_written_out_breaks_a_guarantee(schedules: ModuleType) -> None:
    logging.disable(logging.CRITICAL)
    try:
        schedules.run_directed()
    finally:
        logging.disable(logging.NOTSET)


def _loses_a_notification(backend: Backend) -> bool:
    if backend.outbox and isinstance(backend.outbox[0], Notification) and backend.outbox[0].channel == CHANNEL:
        backend.outbox.popleft()
        return True
    return False


def miscount_is_found() -> bool:
    """Make one standby miss one notification, which PostgreSQL never does; return whether a new epoch begins."""
    world = World(0, kind="rough")
    world.settle()
    epoch = world.redis.entries[-1].id.epoch
    standby = next(listener for listener in world.listeners if listener.active and listener.active.role is Role.STANDBY)
    world.checks_identities = False  # it feeds its own pod's worker wrong ids until its canary
    for _ in range(200):
        if standby.session and _loses_a_notification(standby.session.backend):
            break
        world.tick()
    for _ in range(400):
        world.tick()
    return world.redis.entries[-1].id.epoch > epoch


def test_a_listener_that_miscounts_is_found_by_its_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable(logging.CRITICAL)
    try:
        assert miscount_is_found()
        monkeypatch.setattr(Active, "_entry_read", lambda active, *_: setattr(active, "_unchecked_canary", None))
        assert not miscount_is_found()
    finally:
        logging.disable(logging.NOTSET)
