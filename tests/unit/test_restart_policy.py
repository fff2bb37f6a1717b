"""When what died is started again, and what is taken for dead."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.appliance.supervision.hang_detector import SILENT, HangDetector
from app.appliance.supervision.restart_policy import LONGEST, STABLE, RestartPolicy


def crash_loop(seconds: float, lives: float) -> list[float]:
    """When a program is started that dies after so many seconds, each time."""
    policy, now, starts = RestartPolicy(), 0.0, [0.0]
    policy.started("x", now)
    while now < seconds:
        now = starts[-1] + lives
        now += policy.died("x", now)
        assert policy.take_due(now) == ["x"]
        policy.started("x", now)
        starts.append(now)
    return starts


def test_the_first_death_is_made_good_at_once_and_the_next_ones_ever_later() -> None:
    assert crash_loop(200, lives=0.5)[:9] == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5, 123.5]


@given(st.floats(0, STABLE - 0.01))
def test_a_program_that_keeps_dying_is_started_at_most_once_a_minute_and_never_given_up(lives: float) -> None:
    starts = crash_loop(1000, lives)
    later = [start for start in starts if start >= 64 + 7 * lives]
    assert all(after - before >= LONGEST - 1e-6 for before, after in pairwise(later))
    assert all(after - before <= max(LONGEST, lives) + 1e-6 for before, after in pairwise(starts))


def test_after_a_stable_minute_a_death_is_the_first_again() -> None:
    policy = RestartPolicy()
    for _ in range(9):
        policy.started("x", 0)
        policy.died("x", 1)
    policy.started("x", 100)
    assert policy.died("x", 100 + STABLE) == 0
    assert policy.deaths("x") == 1


def test_what_an_operator_stopped_is_left_alone_and_his_start_begins_anew() -> None:
    policy = RestartPolicy()
    policy.started("x", 0)
    policy.died("x", 1)
    policy.stopped("x")
    assert policy.take_due(1_000) == []
    policy.started("x", 1_000)
    assert policy.died("x", 1_001) == 0


def test_a_start_by_hand_takes_the_place_of_the_one_that_was_due() -> None:
    policy = RestartPolicy()
    for _ in range(5):
        policy.started("x", 0)
        policy.died("x", 1)
    policy.started("x", 2)
    assert policy.take_due(1_000) == []


def test_programs_do_not_wait_for_each_other() -> None:
    policy = RestartPolicy()
    for _ in range(9):
        policy.started("x", 0)
        policy.died("x", 1)
    policy.started("y", 0)
    assert policy.died("y", 1) == 0
    assert policy.take_due(1) == ["y"]


def test_a_sign_that_stays_the_same_for_20_seconds_is_none_and_is_told_once_each_20_seconds() -> None:
    signs = HangDetector()
    told = [now for now in range(100) if signs.look({"dead": 1, "alive": now}, now) == ["dead"]]
    assert told == [SILENT, 2 * SILENT, 3 * SILENT, 4 * SILENT]


def test_any_change_is_a_sign_of_life_also_of_a_clock_that_is_set_back() -> None:
    signs = HangDetector()
    assert all(signs.look({"x": (-1) ** (now // 15)}, now) == [] for now in range(200))


def test_who_was_paused_itself_gives_everybody_a_fresh_period() -> None:
    signs = HangDetector()
    for now in (0, 1, 2, 600, 601, 619):
        assert signs.look({"x": 1}, now) == []
    for now in (620, 621, 622):
        silent = signs.look({"x": 1}, now)
    assert silent == []


def test_a_program_that_shows_no_sign_yet_or_no_more_is_not_judged() -> None:
    signs = HangDetector()
    for now in range(19):
        assert signs.look({"x": 1}, now) == []
    assert signs.look({}, 19) == []
    assert all(signs.look({"x": 1}, now) == [] for now in range(20, 39))
