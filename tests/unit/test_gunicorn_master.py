"""When gunicorn's master may kill silent workers."""

from app.web.gunicorn_master import PauseGrace


def test_without_a_pause_silent_workers_are_judged_at_once() -> None:
    grace = PauseGrace(20, 0)
    assert all(grace.may_judge(float(now)) for now in range(60))


def test_after_a_pause_nobody_is_judged_for_a_whole_timeout() -> None:
    grace = PauseGrace(20, 0)
    judged = [now for now in range(30, 90) if grace.may_judge(float(now))]
    assert judged == list(range(51, 90))


def test_a_cycle_that_takes_a_little_longer_is_no_pause() -> None:
    grace = PauseGrace(20, 0)
    assert all(grace.may_judge(now) for now in (0.0, 4.9, 9.8))
