"""Rates and latencies over time: the last quarter of an hour in buckets of five seconds, and the last minute's samples.

Without a clock of its own: times are arguments.
"""

from collections import deque
from typing import NamedTuple

STEP_SECONDS = 5
MAX_BUCKETS = 180
_RECENT_SECONDS = 60.0
_MAX_SAMPLES = 600  # of the recent seconds, and of a bucket


class RecentSamples:
    """The samples of the last minute, at most the last 600."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_MAX_SAMPLES)

    def add(self, value: float, now: float) -> None:
        """Add a sample that was measured now."""
        self._samples.append((now, value))

    def percentile(self, percent: int, now: float) -> float | None:
        """Return a percentile of the last minute; None without samples."""
        while self._samples and self._samples[0][0] < now - _RECENT_SECONDS:
            self._samples.popleft()
        return percentile([value for _, value in self._samples], percent)


def percentile(values: list[float], percent: int) -> float | None:
    """Return the smallest value that `percent` % of the values do not exceed (nearest rank); None without values."""
    if not values:
        return None
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


class Bucket(NamedTuple):
    """Five seconds. `start` is in Unix seconds, `rate` in events a second, latencies are in seconds; None: unknown."""

    start: int
    rate: float | None
    p50: float | None
    p99: float | None


class TimeSeries:
    """The buckets of the last quarter of an hour. `sample` has to be called once a second."""

    def __init__(self) -> None:
        self._buckets: deque[Bucket] = deque(maxlen=MAX_BUCKETS)
        self._latencies: list[float] = []  # of the current bucket
        self._samples: deque[tuple[float, int]] = deque(maxlen=STEP_SECONDS + 1)
        self._opened: tuple[float, int] | None = None  # the first sample of the current bucket

    def add_latency(self, seconds: float) -> None:
        """Add a latency to the current bucket."""
        if len(self._latencies) < _MAX_SAMPLES:
            self._latencies.append(seconds)

    def sample(self, events: int, now: float) -> None:
        """Record the number of events so far; `now` is in Unix seconds."""
        self._samples.append((now, events))
        if self._opened is None:
            self._opened = now, events
        elif _start(now) != _start(self._opened[0]):
            self._close_bucket(self._opened, (now, events))

    @property
    def rate(self) -> float:
        """Events a second, over the last five seconds."""
        return _rate(self._samples[0], self._samples[-1]) or 0.0 if self._samples else 0.0

    @property
    def last_start(self) -> int:
        """The start of the last complete bucket; 0 without any."""
        return self._buckets[-1].start if self._buckets else 0

    def since(self, start: int) -> list[Bucket]:
        """Return the complete buckets that start after `start`."""
        return [bucket for bucket in self._buckets if bucket.start > start]

    def _close_bucket(self, opened: tuple[float, int], now: tuple[float, int]) -> None:
        p50, p99 = percentile(self._latencies, 50), percentile(self._latencies, 99)
        self._latencies = []
        start, next_start = _start(opened[0]), _start(now[0])
        while self._buckets and self._buckets[-1].start >= start:
            self._buckets.pop()  # the clock was set back
        self._buckets.append(Bucket(start, _rate(opened, now), p50, p99))
        # A process that was suspended has measured nothing meanwhile.
        first_missed = max(start + STEP_SECONDS, next_start - MAX_BUCKETS * STEP_SECONDS)
        self._buckets.extend(
            Bucket(missed, None, None, None) for missed in range(first_missed, next_start, STEP_SECONDS)
        )
        self._opened = now


def _start(at: float) -> int:
    return int(at // STEP_SECONDS) * STEP_SECONDS


def _rate(before: tuple[float, int], after: tuple[float, int]) -> float | None:
    seconds = after[0] - before[0]
    return (after[1] - before[1]) / seconds if seconds > 0 else None
