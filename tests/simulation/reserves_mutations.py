"""Broken rules about reserves (docs/numbering.md, 5 and 16 to 18), which the schedules that are written out notice."""

from collections.abc import Iterable
from math import inf
from typing import Any

import pytest

from listener import registry, reserves
from listener.reserves import FIELDS, HOLDING, Look, Looked, Reserves

Patch = pytest.MonkeyPatch


def rule_5_a_reserves_heartbeat_shows_that_the_registry_was_not_wiped(patch: Patch) -> None:
    """It may be the first that is written after the wipe."""
    patch.setattr(registry, "_may_follow_a_wipe", lambda entry: "young" in entry.fields)


def rule_5_one_look_at_the_registry_shows_that_no_other_is_alive(patch: Patch) -> None:
    """Redis may have been away, be an older copy, or have evicted its hash."""
    patch.setattr(Reserves, "sees_another", False)


def rule_16_one_whose_heartbeats_stand_still_keeps_its_place(patch: Patch) -> None:
    """It may have been killed."""
    patch.setattr(reserves, "STILL_SECONDS", inf)


def rule_16_one_without_a_session_keeps_its_place(patch: Patch) -> None:
    """It may be unable to get one."""
    patch.setattr(reserves, "HOLDING", HOLDING | {"unconnected"})


def rule_16_one_that_is_cut_off_by_a_proxy_keeps_its_place(patch: Patch) -> None:
    """Its session may stay for hours."""
    patch.setattr(reserves, "FIELDS", tuple(name for name in FIELDS if name != "unreachable"))
    patch.setattr(registry, "FIELDS", reserves.FIELDS)


def rule_17_all_join_at_once(patch: Patch) -> None:
    """Each of fifty commits wakes fifty sessions until they have left again."""

    def join(one: Reserves, missing: int, _: Iterable[Any], now: float, *, knows_all: bool) -> bool:
        one.is_full = missing <= 0
        one.may_join, one._missing_since = not one.is_full, None if one.is_full else now
        return True

    patch.setattr(Reserves, "_decide_to_join", join)


def rule_17_the_oldest_has_the_only_turn(patch: Patch) -> None:
    """It may be unable to join."""
    patch.setattr(reserves, "TURN_SECONDS", inf)


def rule_18_nobody_leaves(patch: Patch) -> None:
    """After every silence there are more."""
    patch.setattr(Reserves, "_decide_to_leave", lambda *_: None)


def rule_18_one_leaves_without_a_second_look(patch: Patch) -> None:
    """Those that it leaves its place to may have ended."""
    patch.setattr(reserves, "_FRESH_SECONDS", inf)
    patch.setattr(reserves, "STEADY_SECONDS", 0.0)


def rule_18_time_without_redis_counts(patch: Patch) -> None:
    """Nobody could send a heartbeat."""
    on_answer = Reserves.on_answer

    def late(one: Reserves, look: Look, looked: Looked, now: float, role: str) -> None:
        for other in one._others.values():
            other.still_for += now - vars(one).get("asked_at", now)
        vars(one)["asked_at"] = now
        on_answer(one, look, looked, now, role)

    patch.setattr(Reserves, "on_answer", late)


MUTATIONS = [value for name, value in sorted(globals().items()) if name.startswith("rule_")]
