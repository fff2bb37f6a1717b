"""Rates and latencies over the last quarter of an hour."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.monitoring.time_series import POINTS, STEP, Bucket, RecentSamples, TimeSeries, percentile

START = 1_000_000  # a step's start


def ticked(
    timeline: TimeSeries, seconds: int, per_second: int, at: float = START, events: int = 0
) -> tuple[float, int]:
    """Ticks once a second, each second with as many events; when the next tick would be, and the events so far."""
    for _ in range(seconds):
        timeline.tick(events, at)
        at, events = at + 1, events + per_second
    return at, events


def test_a_step_that_is_over_has_its_events_a_second_and_its_latencies() -> None:
    timeline = TimeSeries()
    timeline.tick(0, START)
    for milliseconds in range(1, 101):
        timeline.latency(milliseconds / 1000)
    assert timeline.since(0) == []
    timeline.tick(1000, START + STEP)
    assert timeline.since(0) == [Bucket(START, 200.0, 0.05, 0.099)]


def test_where_nothing_was_measured_is_nothing_and_not_zero() -> None:
    timeline = TimeSeries()
    ticked(timeline, 6, 0)
    assert timeline.since(0) == [Bucket(START, 0.0, None, None)]


def test_a_worker_that_starts_within_a_step_is_not_blamed_for_the_time_before() -> None:
    timeline = TimeSeries()
    ticked(timeline, 4, 100, START + 3.0)
    assert timeline.since(0) == [Bucket(START, 100.0, None, None)]


def test_only_new_points_are_given_on_and_old_ones_make_room() -> None:
    timeline = TimeSeries()
    at, _ = ticked(timeline, STEP * (POINTS + 50), 1)
    points = timeline.since(0)
    assert len(points) == POINTS
    assert [later.start - earlier.start for earlier, later in pairwise(points)] == [STEP] * 179
    assert points[-1].start == timeline.last == int(at) - 2 * STEP
    assert timeline.since(points[-3].start) == points[-2:]
    assert timeline.since(timeline.last) == []


def test_a_suspended_worker_has_a_hole_and_no_more_points_than_there_are() -> None:
    timeline = TimeSeries()
    timeline.tick(0, START)
    timeline.tick(0, START + 4 * STEP)
    assert [(point.start, point.rate) for point in timeline.since(0)] == [
        (START, 0.0),
        (START + STEP, None),
        (START + 2 * STEP, None),
        (START + 3 * STEP, None),
    ]
    timeline.tick(0, START + 10_000 * STEP)
    assert len(timeline.since(0)) == POINTS


def test_a_clock_that_is_put_back_takes_the_points_of_the_time_that_comes_again() -> None:
    timeline = TimeSeries()
    ticked(timeline, 30, 1)
    ticked(timeline, 20, 1, START + 5, events=30)
    starts = [point.start for point in timeline.since(0)]
    assert starts == sorted(set(starts))


def test_the_rate_is_that_of_the_last_five_seconds() -> None:
    timeline = TimeSeries()
    assert timeline.rate == 0.0
    at, events = ticked(timeline, 10, 1000)
    assert timeline.rate == 1000.0
    at, events = ticked(timeline, 6, 10, at, events)
    assert timeline.rate == 10.0


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200), st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_so_many_percent_do_not_exceed(values: list[int], percent: int) -> None:
    found = percentile(list(map(float, values)), percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_what_is_measured_counts_for_a_minute() -> None:
    recent = RecentSamples()
    assert recent.percentile(50, 0.0) is None
    recent.add(0.9, 0.0)
    recent.add(0.1, 59.0)
    assert recent.percentile(99, 60.0) == 0.9
    assert recent.percentile(99, 60.1) == 0.1
    assert recent.percentile(99, 119.1) is None


def test_a_flood_of_measurements_is_bounded() -> None:
    recent = RecentSamples()
    for number in range(10_000):
        recent.add(float(number), 1.0)
    assert recent.percentile(1, 1.0) == 9405.0
