"""The faults of a simulated world. What a fault breaks stays broken until the world heals."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from notifymux.event import MUX_CHANNEL
from tests.simulation.listener import REFUSALS, Listener

if TYPE_CHECKING:
    from tests.simulation.world import World

FAR_BEHIND = 60  # events


class Fault(NamedTuple):
    """`is_gentle`: no gap follows if one listener has no faults of its own. `is_harmless`: none, with one listener."""

    happen: Callable[[World, Listener], object]
    is_gentle: bool = True
    is_harmless: bool = False


def _pause(world: World, one: Listener) -> None:
    one.paused_until = world.now + world.rng.choice([0.5, 2, 8])


def _cut_from_postgres(world: World, one: Listener) -> None:
    setattr(one, world.rng.choice(["postgres_in", "postgres_out"]), False)


def _cut_from_redis(world: World, one: Listener) -> None:
    one.redis_path = world.rng.choice(["cut", "deaf"])


def _end_session(_: World, one: Listener) -> None:
    if one.session:
        one.session.backend.server.disconnect(one.session.backend)


def _cancel_query(world: World, _: Listener) -> None:
    session = world.rng.choice(world.listeners).session
    if session:
        session.backend.server.cancel(session.backend)


def _pause_worker(world: World, _: Listener) -> None:
    world.rng.choice(world.workers).paused_until = world.now + world.rng.choice([0.5, 5])


def _stall(world: World, _: Listener) -> None:
    world.postgres.stalled_until = world.now + world.rng.choice([1, 5, 12])


def _refuse(world: World, _: Listener) -> None:
    for master in world.masters:
        master.refusal = world.rng.choice(sorted(REFUSALS))


def _redis_away(world: World, _: Listener) -> None:
    world.redis.up = False


def _redis_back(world: World, _: Listener) -> None:
    world.redis.up, world.redis.refusal = True, ""


def _jump(world: World, _: Listener) -> None:
    world.postgres.clock_ms = max(1, world.postgres.clock_ms + world.rng.choice([-900_000, 900_000]))


def _strangers_begin(world: World, _: Listener) -> None:
    """Any role may notify our own channel."""
    epoch = world.rng.choice([1 << 62, (1 << 63) - 1, 0, -1])
    world.postgres.notify(MUX_CHANNEL, json.dumps({"begin": epoch, "floor": epoch, "by": "x"}), world.now)


def _wipe(world: World, _: Listener) -> None:
    # Not while there are two masters: a listener that doesn't know the epoch would begin another one on the wiped
    # master, and events of this time would have two ids (docs/numbering.md, "What is not guaranteed").
    if len(world.masters) == 1:
        world.stream_lost_at.append(world.now)
        world.redis.wipe()


def _wipe_under_a_worker(world: World, one: Listener) -> None:
    world.rng.choice(world.workers).paused_until = world.now + 1
    for _ in range(3):
        world.tick()
    _wipe(world, one)


def _older_copy(world: World, _: Listener) -> None:
    lost = world.rng.randint(0, FAR_BEHIND // 2 if world.calm else len(world.redis.entries))
    world.stream_lost_at.append(world.now)
    world.move_all(world.redis.copy(max(0, len(world.redis.entries) - lost)))


def _crash_all(world: World, _: Listener) -> None:
    for listener in world.listeners:
        if not listener.protected:
            listener.crash()


def _split(world: World, _: Listener) -> None:
    other = world.redis.copy(world.rng.randint(len(world.redis.entries) // 2, len(world.redis.entries)))
    world.masters.append(other)
    for actor in world.actors():
        if world.rng.random() < 0.5:
            world.move(actor, other)


def _restart_postgres(world: World, _: Listener) -> None:
    world.postgres.up = False
    world.postgres.shut_down()


def _fail_over(world: World, _: Listener) -> None:
    """A standby is promoted. The old primary ends, or lives on with the sessions that it has."""
    old = world.postgres
    world.postgres = old.promote()
    world.address = world.rng.choice(["primary", "standby", "old"])
    if world.rng.random() < 0.5:
        old.up = False
        old.shut_down()
    else:
        world.old_servers.append(old)


def _lead_to_a_standby(world: World, _: Listener) -> None:
    world.address = "standby"


FAULTS: dict[str, Fault] = {
    "crash": Fault(lambda _, one: one.crash()),
    "stop": Fault(lambda _, one: one.stop()),
    "pause": Fault(_pause),
    "slow": Fault(lambda _, one: setattr(one, "slow", True)),
    "clock of a pod is wrong": Fault(
        lambda world, one: setattr(one, "clock_error", world.rng.choice([-3600, 3600])), is_harmless=True
    ),
    "cut from PostgreSQL": Fault(_cut_from_postgres),
    "cut from Redis": Fault(_cut_from_redis),
    "session ended": Fault(_end_session),
    "query cancelled": Fault(_cancel_query, is_harmless=True),
    "calls are silent": Fault(lambda _, one: setattr(one, "calls_are_silent", True), is_harmless=True),
    "address leads to a standby": Fault(_lead_to_a_standby),
    "commit stalled": Fault(_stall, is_harmless=True),
    "synchronous standby away": Fault(lambda world, _: setattr(world.postgres, "standby_away", True), is_harmless=True),
    "clock jumps": Fault(_jump, is_harmless=True),
    "stranger's begin": Fault(_strangers_begin, is_harmless=True),
    "worker paused": Fault(_pause_worker),
    "worker reconnects": Fault(lambda world, _: world.rng.choice(world.workers).reconnect(), is_harmless=True),
    "worker restarts": Fault(lambda world, _: world.rng.choice(world.workers).start(), is_harmless=True),
    "feed is cut": Fault(lambda world, _: world.rng.choice(world.listeners).feed.close(), is_harmless=True),
    "messages lost": Fault(lambda world, _: setattr(world, "drops", 0.3), is_harmless=True),
    "answers lost": Fault(lambda world, _: setattr(world, "answers_lost", 0.3), is_harmless=True),
    "Redis refuses": Fault(_refuse, is_harmless=True),
    "Redis away": Fault(_redis_away, is_harmless=True),
    "Redis back": Fault(_redis_back, is_harmless=True),
    "Redis wiped": Fault(_wipe),
    "Redis is an older copy": Fault(_older_copy),
    "Redis wiped under a worker": Fault(_wipe_under_a_worker),
    "healed": Fault(lambda world, _: world.heal(), is_harmless=True),
    "all others crash": Fault(_crash_all),
    "split": Fault(_split, is_gentle=False),
    "PostgreSQL restarts": Fault(_restart_postgres, is_gentle=False),
    "PostgreSQL fails over": Fault(_fail_over, is_gentle=False),
}
