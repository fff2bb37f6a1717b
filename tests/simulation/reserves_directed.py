"""Schedules of a world with more listeners than may hold a session (rules 16 to 18), written out."""

from collections.abc import Callable

from tests.simulation.listener import Listener
from tests.simulation.small_world import ROUND_SECONDS, SmallWorld
from tests.simulation.violation import Violation

_NOTICED = 10  # seconds within which one that is gone is noticed, and another one has its place
_SETTLED = 25  # seconds after which everything has to be as it should be


class ReservesWorld(SmallWorld):
    """Five listeners, two of which hold a session."""

    NAMES, MOST = "ABCDE", 2

    def __init__(self) -> None:
        super().__init__(faults=0)
        self.calm = True
        self.actions()["commit"]()  # a worker that has delivered nothing misses nothing
        self.pass_seconds(_SETTLED)  # until those that joined too early have left
        self.holders = [listener for listener in self.listeners if listener.holds]
        self.reserves = [listener for listener in self.listeners if not listener.holds]

    @property
    def at_work(self) -> list[Listener]:
        """Those that hold a session, and are neither frozen nor ended."""
        return [one for one in self.listeners if one.holds and max(one.paused_until, one.starts_at) <= self.now]

    def pass_seconds(self, seconds: float) -> None:
        self.pass_rounds(round(seconds / ROUND_SECONDS))

    def pass_without_a_third(self, seconds: float) -> None:
        """Let time pass, in which no listener too many joins."""
        for _ in range(round(seconds / ROUND_SECONDS)):
            self.pass_rounds(1)
            if len(self.at_work) > self.MOST:
                raise Violation(f"a session is held by {[one.name for one in self.at_work]}")

    def pass_until_a_reserve_knows_the_last_heartbeats(self) -> None:
        def knows(one: Listener) -> bool:
            watched = [other for other in one.reserves._others.values() if other.holds]
            return all(other.fields["beats"] == self.redis.hashes[other.key]["beats"] for other in watched)

        self.pass_until(lambda: any(map(knows, self.reserves)), "no reserve looks at the heartbeats")

    def pass_until(self, happened: Callable[[], bool], otherwise: str) -> None:
        for _ in range(round(_SETTLED / ROUND_SECONDS)):
            if happened():
                return
            self.pass_rounds(1)
        raise Violation(otherwise)

    def expect_two(self) -> None:
        if len(self.at_work) != self.MOST:
            raise Violation(f"a session is held by {[one.name for one in self.at_work]}")


def run_directed() -> None:
    """Run them all."""
    for schedule in (
        _one_is_killed,
        _all_are_killed,
        _one_is_frozen,
        _one_is_cut_off_from_postgresql,
        _one_is_cut_off_by_a_proxy,
        _the_next_reserve_reaches_no_postgresql,
        _redis_is_away,
        _redis_is_wiped,
        _redis_is_wiped_while_one_joins,
        _redis_is_away_while_one_joins,
        _redis_evicts_a_hash_while_one_joins,
        _one_is_frozen_while_it_is_one_too_many,
    ):
        world = ReservesWorld()
        schedule(world)
        world.finish()


def _one_is_killed(world: ReservesWorld) -> None:
    world.holders[0].crash(for_seconds=1000)
    world.pass_without_a_third(_NOTICED)
    world.expect_two()
    if not world.reserves[0].holds:
        raise Violation("not the oldest reserve has joined")


def _all_are_killed(world: ReservesWorld) -> None:
    world.calm = False
    for one in world.holders:
        one.crash(for_seconds=1000)
    world.pass_without_a_third(_SETTLED)  # two join, and each waits for the other to append
    world.expect_two()


def _one_is_frozen(world: ReservesWorld) -> None:
    frozen = world.holders[0]
    frozen.paused_until = world.now + 1000
    world.pass_without_a_third(_NOTICED)
    world.expect_two()
    frozen.paused_until = world.now
    world.pass_seconds(_SETTLED)
    world.expect_two()


def _one_is_cut_off_from_postgresql(world: ReservesWorld) -> None:
    world.holders[0].postgres_in = world.holders[0].postgres_out = False
    world.pass_seconds(15)
    world.expect_two()


def _one_is_cut_off_by_a_proxy(world: ReservesWorld) -> None:
    """Its session stays, and comes back; then there is one too many."""
    holder = world.holders[0]
    holder.is_proxied, holder.postgres_in, holder.postgres_out = True, False, False
    world.pass_seconds(15)
    if len(set(world.at_work) - {holder}) != world.MOST:
        raise Violation(f"a session is held by {[one.name for one in world.at_work]}, and {holder.name} is cut off")
    if not holder.holds:
        raise Violation("a session that may come back was given up")
    holder.postgres_in = holder.postgres_out = True
    world.pass_seconds(_SETTLED)
    world.expect_two()


def _the_next_reserve_reaches_no_postgresql(world: ReservesWorld) -> None:
    world.reserves[0].postgres_in = world.reserves[0].postgres_out = False
    world.holders[0].crash(for_seconds=1000)
    world.pass_seconds(15)
    world.expect_two()


def _redis_is_away(world: ReservesWorld) -> None:
    """It goes away when a reserve knows the last heartbeats, and is back before there are new ones."""
    world.pass_until_a_reserve_knows_the_last_heartbeats()
    world.redis.up = False
    world.pass_without_a_third(20)
    world.redis.up = True
    for one in world.holders:
        one.paused_until = world.now + 1.5
    world.pass_without_a_third(_SETTLED)
    if [one for one in world.listeners if one.holds] != world.holders:
        raise Violation("others hold a session than before")


def _redis_is_wiped(world: ReservesWorld) -> None:
    world.stream_lost_at.append(world.now)
    world.redis.wipe()
    world.pass_without_a_third(_SETTLED)
    if [one for one in world.listeners if one.holds] != world.holders:
        raise Violation("others hold a session than before")


def _redis_is_wiped_while_one_joins(world: ReservesWorld) -> None:
    """A reserve writes its heartbeat again before the one that is at work, which the one that joins never saw."""
    at_work, joining = _join_while_it_is_frozen(world)
    _pass_until_it_looks_for_others(world, joining)
    _forget_others(joining)
    world.stream_lost_at.append(world.now)
    world.redis.wipe()
    _let_reserves_beat_first(world, at_work)


def _redis_is_away_while_one_joins(world: ReservesWorld) -> None:
    """When it is back, a reserve sends a heartbeat before the one that is at work."""
    at_work, joining = _join_while_it_is_frozen(world)
    world.pass_until(lambda: joining._phase() == "searching", "it does not look for its marker")
    world.redis.up = False
    world.pass_seconds(_NOTICED)
    world.redis.up = True
    _let_reserves_beat_first(world, at_work)


def _redis_evicts_a_hash_while_one_joins(world: ReservesWorld) -> None:
    """It is the one of the listener at work, which writes it again within a second."""
    at_work, joining = _join_while_it_is_frozen(world)
    _pass_until_it_looks_for_others(world, joining)
    del world.redis.hashes[at_work.reserves._own.key]
    _let_reserves_beat_first(world, at_work)


def _join_while_it_is_frozen(world: ReservesWorld) -> tuple[Listener, Listener]:
    """Have the oldest reserve join; return the one at work, which is frozen, and that reserve."""
    at_work, other = world.holders
    joining = world.reserves[0]
    other.crash(for_seconds=1000)
    world.pass_until(lambda: joining.session is not None, "nobody joins")
    at_work.paused_until = world.now + 1000
    return at_work, joining


def _pass_until_it_looks_for_others(world: ReservesWorld, one: Listener) -> None:
    world.pass_until(lambda: one._cause == "CheckOtherListeners", "it does not look for others")


def _forget_others(one: Listener) -> None:
    """Have it know no more of the others than if they had started since its last search."""
    for other in one.reserves._others.values():
        other.fields, other.is_read = {}, False


def _let_reserves_beat_first(world: ReservesWorld, at_work: Listener) -> None:
    for one in world.reserves:
        one.forwarder._redis.beat_soon()
    at_work.paused_until = world.now + 2.0
    world.pass_seconds(_SETTLED)
    world.expect_two()


def _one_is_frozen_while_it_is_one_too_many(world: ReservesWorld) -> None:
    """The older ones end meanwhile: it stays."""
    frozen, other = world.holders
    frozen.paused_until = world.now + 1000
    world.pass_seconds(_NOTICED)
    [youngest] = [one for one in world.reserves if one.holds]
    frozen.paused_until = world.now
    world.pass_until(lambda: bool(youngest.reserves._staying), f"{youngest.name} is not seen to wait before it leaves")
    youngest.paused_until = world.now + 12
    world.pass_seconds(1)
    frozen.crash(for_seconds=1000)
    other.crash(for_seconds=1000)
    world.calm = False
    world.pass_seconds(12 + _SETTLED)
    world.expect_two()
