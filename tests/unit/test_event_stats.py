"""What passes a worker's observer is passed on as it is, counted and timed."""

import json
import time
from collections.abc import Sequence

import msgspec

from app.broadcast.router import Router
from app.monitoring.event_stats import EventStats
from app.monitoring.recent_events import RecentEvents
from app.sources.base import GapReason
from notifymux.event import Event, EventId


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def start(self, position: EventId | None, recent: Sequence[Event]) -> None:
        self.told.append(("start", position, recent))

    def deliver(self, events: Sequence[Event]) -> None:
        self.told.extend(events)

    def gap(self, position: EventId | None, why: GapReason) -> None:
        self.told.append(("gap", position, why))


def observer() -> tuple[EventStats, Sink]:
    sink = Sink()
    return EventStats(sink, RecentEvents(Router("match_id"))), sink


def ours(at: float | None = None, **payload: object) -> Event:
    return Event("pg_notify_mux", msgspec.Raw(json.dumps(payload).encode()), "7-1", at)


def test_everything_is_passed_on_in_order() -> None:
    watching, sink = observer()
    event, canary = Event("match_change", msgspec.Raw(b"{}"), "7-2"), ours(canary="t", sent=1.0, at=1.0)
    watching.start(EventId(7, 1), [event])
    watching.deliver([event, canary, event])
    watching.gap(EventId(8, 1), GapReason.EPOCH)
    assert sink.told == [
        ("start", EventId(7, 1), [event]),
        event,
        canary,
        event,
        ("gap", EventId(8, 1), GapReason.EPOCH),
    ]
    assert watching.events == 2


def test_a_canary_measures_the_whole_way_and_its_hops() -> None:
    watching, _ = observer()
    now = time.time()
    measured = {"queue": 0.25, "listening": 2, "connections": 9, "max_connections": 10}
    watching.deliver([ours(now - 1.0, canary="t", sent=now - 3.0, **measured)])
    [latency] = watching.fresh
    assert 3.0 <= latency.whole < 4.0
    assert 1.0 <= latency.last_hop < 2.0
    assert watching.first_hop.percentile(50, time.monotonic()) == 2.0
    assert {name: getattr(watching.canary, name) for name in measured} == measured


def test_a_clock_that_is_ahead_makes_no_latency_negative() -> None:
    watching, _ = observer()
    watching.deliver([ours(time.time() + 50, canary="t", sent=time.time() + 100)])
    [latency] = watching.fresh
    assert latency == (0.0, 0.0)


def test_what_others_write_on_our_channel_is_no_canary_and_does_no_harm() -> None:
    watching, sink = observer()
    nested = b"[" * 200 + b"]" * 200
    for payload in (b"null", b"7", b'"x"', b'{"canary": 7}', b'{"sent": "now"}', nested, b'{"begin": 8}'):
        watching.deliver([Event("pg_notify_mux", msgspec.Raw(payload), "7-1", 1.0)])
    assert not watching.fresh
    assert len(sink.told) == 7


def test_a_token_to_verify_is_noted_with_its_time() -> None:
    watching, _ = observer()
    before = time.time()
    watching.deliver([ours(1.0, verify="a token")])
    assert watching.verified
    assert watching.verified.token == "a token"
    assert before <= watching.verified.at <= time.time()
    assert watching.asked.is_set()


def test_gaps_are_counted_by_cause_and_told_to_the_ledger_unless_somebody_else_does() -> None:
    watching, _ = observer()
    watching.gap(None, GapReason.EPOCH)
    watching.gap(None, GapReason.STREAM_LOST)
    watching.gap(None, GapReason.STREAM_LOST)
    assert watching.gaps == {GapReason.EPOCH: 1, GapReason.STREAM_LOST: 2}
    assert [(incident.kind, incident.text) for incident in watching.incidents] == [("gap", "the stream was lost")] * 2


def test_events_are_kept_for_the_tail_only_while_somebody_watches() -> None:
    watching, _ = observer()
    event = Event("match_change", msgspec.Raw(b"{}"))
    watching.deliver([event])
    with watching.tail.watch() as mark:
        watching.deliver([event, ours(canary="t"), event])
        watching.deliver([event])
        assert len(watching.tail.look(mark).events) == 3
    assert watching.events == 4
