"""The faults of a world whose listeners read a replication slot: those of every world, and the slot's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.faults import FAULTS, Fault
from tests.simulation.wal_postgres import TRAIL_SECONDS, WalBackend, WalPostgres

if TYPE_CHECKING:
    from tests.simulation.listener import Listener
    from tests.simulation.world import World


def _end_reading(_: World, one: Listener) -> None:
    """The connection that reads the slot ends, and the one for queries lives on."""
    backend = one.session.backend if one.session else None
    if isinstance(backend, WalBackend):
        backend.server.end_reading(backend)


def _slightly_older(world: World, _: Listener) -> None:
    """Redis comes back without what it has had for less than the trail, but not empty."""
    until = world.wall - world.rng.uniform(0, 1) * TRAIL_SECONDS
    redis = world.redis
    world.move_all(redis.copy(max(1, sum(redis.since[entry.id] <= until for entry in redis.entries))))


def _invalidate(world: World, _: Listener) -> None:
    if isinstance(world.postgres, WalPostgres):
        world.postgres.invalidate()


WAL_FAULTS: dict[str, Fault] = FAULTS | {
    "slot's reading ended": Fault(_end_reading),
    "Redis is slightly older": Fault(_slightly_older),
    "PostgreSQL crashes": Fault(lambda world, _: world.postgres.shut_down()),
    "slot invalidated": Fault(_invalidate),
}

# After these the slot does not have everything that is missing, unless its reader lives and nothing else happens.
LOSING = {
    "Redis wiped",
    "Redis wiped under a worker",
    "Redis is an older copy",
    "split",
    "PostgreSQL fails over",
    "slot invalidated",
}
