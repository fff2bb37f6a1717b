"""Rates and latencies over the last quarter of an hour."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.monitoring.time_series import MAX_BUCKETS, STEP_SECONDS, Bucket, RecentSamples, TimeSeries, percentile

START = 1_000_000  # a bucket's start


def sampled(series: TimeSeries, seconds: int, per_second: int, at: float = START, events: int = 0) -> tuple[float, int]:
    """Sample once a second, with so many events each; return the next sample's time and the events so far."""
    for _ in range(seconds):
        series.sample(events, at)
        at, events = at + 1, events + per_second
    return at, events


def test_a_complete_bucket_has_its_rate_and_its_latencies() -> None:
    series = TimeSeries()
    series.sample(0, START)
    for milliseconds in range(1, 101):
        series.add_latency(milliseconds / 1000)
    assert series.since(0) == []
    series.sample(1000, START + STEP_SECONDS)
    assert series.since(0) == [Bucket(START, 200.0, 0.05, 0.099)]


def test_a_bucket_without_latencies_has_none_and_not_zero() -> None:
    series = TimeSeries()
    sampled(series, 6, 0)
    assert series.since(0) == [Bucket(START, 0.0, None, None)]


def test_the_rate_of_the_first_bucket_is_that_of_the_time_since_the_start() -> None:
    series = TimeSeries()
    sampled(series, 4, 100, START + 3.0)
    assert series.since(0) == [Bucket(START, 100.0, None, None)]


def test_only_new_buckets_are_returned_and_the_oldest_are_dropped() -> None:
    series = TimeSeries()
    at, _ = sampled(series, STEP_SECONDS * (MAX_BUCKETS + 50), 1)
    buckets = series.since(0)
    assert len(buckets) == MAX_BUCKETS
    assert [later.start - earlier.start for earlier, later in pairwise(buckets)] == [STEP_SECONDS] * 179
    assert buckets[-1].start == series.last_start == int(at) - 2 * STEP_SECONDS
    assert series.since(buckets[-3].start) == buckets[-2:]
    assert series.since(series.last_start) == []


def test_while_the_process_was_suspended_buckets_are_empty_and_no_more_than_fit() -> None:
    series = TimeSeries()
    series.sample(0, START)
    series.sample(0, START + 4 * STEP_SECONDS)
    assert [(bucket.start, bucket.rate) for bucket in series.since(0)] == [
        (START, 0.0),
        (START + STEP_SECONDS, None),
        (START + 2 * STEP_SECONDS, None),
        (START + 3 * STEP_SECONDS, None),
    ]
    series.sample(0, START + 10_000 * STEP_SECONDS)
    assert len(series.since(0)) == MAX_BUCKETS


def test_a_clock_that_is_set_back_replaces_the_buckets_of_the_repeated_time() -> None:
    series = TimeSeries()
    sampled(series, 30, 1)
    sampled(series, 20, 1, START + 5, events=30)
    starts = [bucket.start for bucket in series.since(0)]
    assert starts == sorted(set(starts))


def test_the_rate_is_that_of_the_last_five_seconds() -> None:
    series = TimeSeries()
    assert series.rate == 0.0
    at, events = sampled(series, 10, 1000)
    assert series.rate == 1000.0
    at, events = sampled(series, 6, 10, at, events)
    assert series.rate == 10.0


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200), st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_so_many_percent_do_not_exceed(values: list[int], percent: int) -> None:
    found = percentile(list(map(float, values)), percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_a_sample_counts_for_a_minute() -> None:
    recent = RecentSamples()
    assert recent.percentile(50, 0.0) is None
    recent.add(0.9, 0.0)
    recent.add(0.1, 59.0)
    assert recent.percentile(99, 60.0) == 0.9
    assert recent.percentile(99, 60.1) == 0.1
    assert recent.percentile(99, 119.1) is None


def test_the_number_of_samples_is_bounded() -> None:
    recent = RecentSamples()
    for number in range(10_000):
        recent.add(float(number), 1.0)
    assert recent.percentile(1, 1.0) == 9405.0
