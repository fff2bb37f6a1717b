"""The last quarter of an hour in steps of five seconds, and the last minute's measurements. It has no clock."""

from collections import deque
from typing import NamedTuple

STEP = 5  # seconds
POINTS = 180
_MINUTE = 60.0
_MOST = 600  # measurements that are kept of a minute, and of a step


class RecentSamples:
    """The measurements of the last minute, at most the last 600."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, float]] = deque(maxlen=_MOST)

    def add(self, value: float, now: float) -> None:
        """Takes one in."""
        self._values.append((now, value))

    def percentile(self, percent: int, now: float) -> float | None:
        """The value that so many percent do not exceed; None if nothing was measured."""
        while self._values and self._values[0][0] < now - _MINUTE:
            self._values.popleft()
        return percentile([value for _, value in self._values], percent)


def percentile(values: list[float], percent: int) -> float | None:
    """The smallest of `values` that so many percent of them do not exceed (nearest rank); None without any."""
    if not values:
        return None
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


class Bucket(NamedTuple):
    """One step: its start in Unix seconds, events a second, latencies in seconds; None where nothing was measured."""

    start: int
    rate: float | None
    p50: float | None
    p99: float | None


class TimeSeries:
    """Steps that are over. It is told of events once a second, by their number so far."""

    def __init__(self) -> None:
        self._points: deque[Bucket] = deque(maxlen=POINTS)
        self._latencies: list[float] = []
        self._ticks: deque[tuple[float, int]] = deque(maxlen=STEP + 1)
        self._opened: tuple[float, int] | None = None  # the tick at which the step that runs began

    def latency(self, seconds: float) -> None:
        """Takes in one measurement."""
        if len(self._latencies) < _MOST:
            self._latencies.append(seconds)

    def tick(self, events: int, now: float) -> None:
        """Takes in how many events there were so far; `now` is in Unix seconds."""
        self._ticks.append((now, events))
        if self._opened is None:
            self._opened = now, events
        elif _start(now) != _start(self._opened[0]):
            self._close(events, now)

    @property
    def rate(self) -> float:
        """Events a second, over the last five."""
        return _rate(self._ticks[0], self._ticks[-1]) or 0.0 if self._ticks else 0.0

    @property
    def last(self) -> int:
        """When the last point starts; 0 without any."""
        return self._points[-1].start if self._points else 0

    def since(self, start: int) -> list[Bucket]:
        """The points after that which started at `start`."""
        return [point for point in self._points if point.start > start]

    def _close(self, events: int, now: float) -> None:
        opened = self._opened or (now, events)
        p50, p99 = percentile(self._latencies, 50), percentile(self._latencies, 99)
        self._latencies = []
        started = _start(opened[0])
        while self._points and self._points[-1].start >= started:
            self._points.pop()  # the clock was put back
        self._points.append(Bucket(started, _rate(opened, (now, events)), p50, p99))
        # Who was suspended meanwhile measured nothing.
        first = max(started + STEP, _start(now) - POINTS * STEP)
        self._points.extend(Bucket(missed, None, None, None) for missed in range(first, _start(now), STEP))
        self._opened = now, events


def _start(at: float) -> int:
    return int(at // STEP) * STEP


def _rate(before: tuple[float, int], after: tuple[float, int]) -> float | None:
    seconds = after[0] - before[0]
    return (after[1] - before[1]) / seconds if seconds > 0 else None
