"""What a source delivers is passed on unchanged, counted and timed."""

import json
import time
from collections.abc import Sequence

import msgspec
import pytest

from app.broadcast.router import Router
from app.monitoring.event_stats import EventStats
from app.monitoring.recent_events import RecentEvents
from notifymux.event import Event, EventId
from notifymux.sequence_tracker import GapReason


class Sink:
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received: list[object] = []

    def start(self, position: EventId | None, recent: Sequence[Event]) -> None:
        self.received.append(("start", position, recent))

    def deliver(self, events: Sequence[Event]) -> None:
        self.received.extend(events)

    def gap(self, position: EventId | None, why: GapReason) -> None:
        self.received.append(("gap", position, why))


def event_stats() -> tuple[EventStats, Sink]:
    sink = Sink()
    return EventStats(sink, RecentEvents(Router("match_id"))), sink


def ours(at: float | None = None, **payload: object) -> Event:
    return Event("pg_notify_mux", msgspec.Raw(json.dumps(payload).encode()), "7-1", at)


def test_everything_is_passed_on_in_order() -> None:
    stats, sink = event_stats()
    event, canary = Event("match_change", msgspec.Raw(b"{}"), "7-2"), ours(canary="t", sent=1.0, at=1.0)
    stats.start(EventId(7, 1), [event])
    stats.deliver([event, canary, event])
    stats.gap(EventId(8, 1), GapReason.EPOCH)
    assert sink.received == [
        ("start", EventId(7, 1), [event]),
        event,
        canary,
        event,
        ("gap", EventId(8, 1), GapReason.EPOCH),
    ]
    assert stats.events == 2


def test_a_canary_measures_the_whole_path_and_its_hops() -> None:
    stats, _ = event_stats()
    now = time.time()
    measured = {"queue": 0.25, "listening": 2, "connections": 9, "max_connections": 10}
    stats.deliver([ours(now - 1.0, canary="t", sent=now - 3.0, **measured)])
    [latency] = stats.new_samples
    assert 3.0 <= latency.end_to_end < 4.0
    assert 1.0 <= latency.listener_to_worker < 2.0
    assert stats.pg_to_listener.percentile(50, time.monotonic()) == 2.0
    assert {name: getattr(stats.canary, name) for name in measured} == measured


def test_a_clock_that_is_a_little_ahead_makes_no_latency_negative() -> None:
    stats, _ = event_stats()
    stats.deliver([ours(time.time() + 2, canary="t", sent=time.time() + 3)])
    [latency] = stats.new_samples
    assert latency == (0.0, 0.0)


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_what_clocks_that_are_an_hour_apart_measure_is_no_latency(ahead: int) -> None:
    stats, _ = event_stats()
    at = time.time() + ahead
    stats.deliver([ours(at, canary="t", sent=at - 0.001)])
    now = time.monotonic()
    assert not stats.new_samples
    assert stats.end_to_end.percentile(50, now) is stats.listener_to_worker.percentile(50, now) is None
    assert stats.pg_to_listener.percentile(50, now) == pytest.approx(0.001, abs=1e-5), "both times are the listener's"


def test_what_others_notify_on_our_channel_is_passed_on_and_measures_nothing() -> None:
    stats, sink = event_stats()
    nested = b"[" * 200 + b"]" * 200
    for payload in (b"null", b"7", b'"x"', b'{"canary": 7}', b'{"sent": "now"}', nested, b'{"begin": 8}'):
        stats.deliver([Event("pg_notify_mux", msgspec.Raw(payload), "7-1", 1.0)])
    assert not stats.new_samples
    assert len(sink.received) == 7


def test_a_token_to_verify_is_recorded_with_its_time() -> None:
    stats, _ = event_stats()
    before = time.time()
    stats.deliver([ours(1.0, verify="a token")])
    assert stats.verified
    assert stats.verified.token == "a token"
    assert before <= stats.verified.at <= time.time()
    assert stats.verify_requested.is_set()


def test_gaps_are_counted_by_reason_and_logged_unless_the_listener_logs_them() -> None:
    stats, _ = event_stats()
    stats.gap(None, GapReason.EPOCH)
    stats.gap(None, GapReason.STREAM_LOST)
    stats.gap(None, GapReason.STREAM_LOST)
    assert stats.gaps == {GapReason.EPOCH: 1, GapReason.STREAM_LOST: 2}
    assert [(incident.kind, incident.text) for incident in stats.incidents] == [("gap", GapReason.STREAM_LOST)] * 2


def test_events_are_kept_only_while_somebody_watches() -> None:
    stats, _ = event_stats()
    event = Event("match_change", msgspec.Raw(b"{}"))
    stats.deliver([event])
    with stats.recent_events.watch() as cursor:
        stats.deliver([event, ours(canary="t"), event])
        stats.deliver([event])
        assert len(stats.recent_events.since(cursor).events) == 3
    assert stats.events == 4
