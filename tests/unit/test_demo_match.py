"""The demo's match keeps to the rules of the game, whatever the random numbers."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.appliance.demo.match import (
    DOWNS,
    FIELD_YARDS,
    PLAY_CLOCK_SECONDS,
    QUARTER_SECONDS,
    QUARTERS,
    TIMEOUTS,
    Game,
    GameEvent,
)
from app.appliance.demo.teams import FIXTURES, Side

FIXTURE = FIXTURES[1]
POINTS = {"touchdown": 6, "extra_point": 1, "field_goal": 3, "safety": 2}

seeds = st.integers(0, 2**32)


def played(seed: int) -> Iterator[Game]:
    """A match at each of its seconds."""
    game = Game(Random(seed), FIXTURE)
    for _ in game.seconds():
        yield game


def events(seed: int) -> list[GameEvent]:
    return [event for game in played(seed) for event in game.take_events()]


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_the_score_is_the_sum_of_the_events_points(seed: int) -> None:
    points: dict[Side, int] = {"home": 0, "away": 0}
    for game in played(seed):
        for event in game.take_events():
            points[event.team] += POINTS.get(event.kind, 0)
        assert game.score == points


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_the_game_clock_runs_down_by_seconds_within_a_quarter(seed: int) -> None:
    quarter, clock = 1, QUARTER_SECONDS
    for game in played(seed):
        if game.quarter != quarter:
            assert (game.quarter, clock) == (quarter + 1, 0)
            quarter, clock = game.quarter, QUARTER_SECONDS
        assert clock - game.clock in {0, 1}
        clock = game.clock
    assert (quarter, clock) == (QUARTERS, 0)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_the_ball_the_downs_and_the_clocks_stay_within_the_rules(seed: int) -> None:
    for game in played(seed):
        assert 0 <= game.yardline <= FIELD_YARDS
        assert 0 <= game.play_clock <= PLAY_CLOCK_SECONDS
        assert all(0 <= left <= TIMEOUTS for left in game.timeouts.values())
        assert (game.down is None) == (game.distance is None)
        if game.down is not None and game.distance is not None:
            assert 1 <= game.down <= DOWNS
            assert 1 <= game.distance <= FIELD_YARDS - game.ball
            assert 0 < game.ball < FIELD_YARDS


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_events_are_in_the_order_of_the_game(seed: int) -> None:
    moments = [(event.quarter, -event.clock) for event in events(seed)]
    assert moments == sorted(moments)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_players_have_the_yards_of_the_events(seed: int) -> None:
    game = Game(Random(seed), FIXTURE)
    recorded = [event for _ in game.seconds() for event in game.take_events()]
    runs, passes = (sum(event.yards for event in recorded if event.kind == kind) for kind in ("run", "pass"))
    assert sum(player.yards for player in game.players) == runs + 2 * passes  # a pass counts for two players


def test_a_match_begins_before_kickoff_and_ends_after_the_whistle() -> None:
    statuses = list(dict.fromkeys(game.status for game in played(1)))
    assert statuses == ["pregame", "live", "halftime", "final"]


def test_every_kind_of_event_occurs_within_some_matches() -> None:
    kinds = {event.kind for seed in range(40) for event in events(seed)}
    assert kinds == {
        "kickoff", "run", "pass", "incomplete", "sack", "fumble", "interception", "downs", "punt", "field_goal",
        "missed_field_goal", "touchdown", "extra_point", "missed_extra_point", "safety", "timeout", "quarter",
        "halftime", "final",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_match_is_lively_and_of_bounded_length(seed: int) -> None:
    assert sum(1 for _ in played(seed)) < 10_000
    assert 100 < len(events(seed)) < 400
