"""When a program that exited is started again, and which programs are found to hang."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.appliance.supervision.hang_detector import HANG_TIMEOUT_SECONDS, HangDetector
from app.appliance.supervision.restart_policy import MAX_INTERVAL_SECONDS, STABLE_SECONDS, RestartPolicy


def crash_loop(seconds: float, lives: float) -> list[float]:
    """The times at which a program is started that exits after `lives` seconds each time."""
    policy, now, starts = RestartPolicy(), 0.0, [0.0]
    policy.started("x", now)
    while now < seconds:
        now = starts[-1] + lives
        now += policy.exited("x", now)
        assert policy.take_due(now) == ["x"]
        policy.started("x", now)
        starts.append(now)
    return starts


def crash(policy: RestartPolicy, program: str, times: int) -> None:
    for _ in range(times):
        policy.started(program, 0)
        policy.exited(program, 1)


def test_the_first_restart_is_immediate_and_the_delays_double() -> None:
    assert crash_loop(200, lives=0.5)[:9] == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5, 123.5]


@given(st.floats(0, STABLE_SECONDS - 0.01))
def test_a_program_that_keeps_exiting_is_started_at_most_once_a_minute_and_never_given_up(lives: float) -> None:
    starts = crash_loop(1000, lives)
    later = [start for start in starts if start >= 64 + 7 * lives]
    assert all(after - before >= MAX_INTERVAL_SECONDS - 1e-6 for before, after in pairwise(later))
    assert all(after - before <= max(MAX_INTERVAL_SECONDS, lives) + 1e-6 for before, after in pairwise(starts))


def test_after_a_stable_minute_an_exit_is_the_first_again() -> None:
    policy = RestartPolicy()
    crash(policy, "x", times=9)
    policy.started("x", 100)
    assert policy.exited("x", 100 + STABLE_SECONDS) == 0
    assert policy.exits("x") == 1


def test_a_program_that_an_operator_stopped_is_not_started_and_counts_from_its_next_start() -> None:
    policy = RestartPolicy()
    crash(policy, "x", times=1)
    policy.stopped("x")
    assert policy.take_due(1_000) == []
    policy.started("x", 1_000)
    assert policy.exited("x", 1_001) == 0


def test_a_start_by_hand_replaces_the_one_that_is_due() -> None:
    policy = RestartPolicy()
    crash(policy, "x", times=5)
    assert policy.is_due("x")
    policy.started("x", 2)
    assert not policy.is_due("x")
    assert policy.take_due(1_000) == []


def test_each_program_has_its_own_delay() -> None:
    policy = RestartPolicy()
    crash(policy, "x", times=9)
    policy.started("y", 0)
    assert policy.exited("y", 1) == 0
    assert policy.take_due(1) == ["y"]


def test_a_heartbeat_that_stays_the_same_for_20_seconds_is_a_hang_and_is_reported_every_20_seconds() -> None:
    detector = HangDetector()
    reported = [now for now in range(100) if detector.check({"dead": 1, "alive": now}, now) == ["dead"]]
    assert reported == [n * HANG_TIMEOUT_SECONDS for n in (1, 2, 3, 4)]


def test_any_change_counts_also_that_of_a_clock_that_is_set_back() -> None:
    detector = HangDetector()
    assert all(detector.check({"x": (-1) ** (now // 15)}, now) == [] for now in range(200))


def test_after_a_pause_of_the_watchdog_itself_every_program_gets_the_whole_timeout() -> None:
    detector = HangDetector()
    for now in (0, 1, 2, 600, 601, 619):
        assert detector.check({"x": 1}, now) == []
    for now in (620, 621, 622):
        hanging = detector.check({"x": 1}, now)
    assert hanging == []


def test_a_program_without_a_heartbeat_is_not_checked() -> None:
    detector = HangDetector()
    for now in range(19):
        assert detector.check({"x": 1}, now) == []
    assert detector.check({}, 19) == []
    assert all(detector.check({"x": 1}, now) == [] for now in range(20, 39))
