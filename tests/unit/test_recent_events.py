"""The last events, for operators who watch."""

import json
from contextlib import ExitStack

import msgspec

from app.broadcast.router import Router
from app.monitoring.recent_events import EventsPage, RecentEvents
from notifymux.event import Event


def recent_events() -> RecentEvents:
    return RecentEvents(Router("match_id"))


def add(events: RecentEvents, count: int, channel: str = "match_change", match: object = 1) -> None:
    for number in range(count):
        payload = msgspec.Raw(json.dumps({"match_id": match, "n": number}).encode())
        events.add([Event(channel, payload, f"7-{events.cursor + 1}", 1.5)])


def numbers(page: EventsPage) -> list[int]:
    return [int(event["id"].partition("-")[2]) for event in page.events]


def test_what_a_page_shows_of_an_event() -> None:
    events = recent_events()
    payload = '{"match_id": "final", "x": "<b>"}'
    with events.watch() as cursor:
        events.add([Event("match_change", msgspec.Raw(payload.encode()), "7-1", 1.5)])
        events.add([Event("weather", msgspec.Raw(b'"rain"'), None, None)])
        page = events.since(cursor)
    assert page.events == [
        {"at": 1.5, "id": "7-1", "channel": "match_change", "match": "final", "payload": payload},
        {"at": None, "id": None, "channel": "weather", "match": None, "payload": '"rain"'},
    ]


def test_a_long_payload_is_cut_between_characters() -> None:
    events = recent_events()
    with events.watch() as cursor:
        events.add([Event("a", msgspec.Raw(b'"' + "ü".encode() * 2000 + b'"'))])
        [event] = events.since(cursor).events
    assert event["payload"] == '"' + "ü" * 499


def test_each_page_starts_where_the_last_one_ended() -> None:
    events = recent_events()
    with events.watch() as cursor:
        add(events, 3)
        first = events.since(cursor)
        add(events, 2)
        second = events.since(first.cursor)
        assert (numbers(first), numbers(second)) == ([1, 2, 3], [4, 5])
        assert events.since(second.cursor) == EventsPage([], 0, 5)


def test_of_many_events_the_newest_are_shown_and_the_rest_is_counted() -> None:
    events = recent_events()
    with events.watch() as cursor:
        add(events, 5000)
        page = events.since(cursor)
    assert numbers(page) == list(range(4951, 5001))
    assert page.skipped == 4950


def test_a_page_of_one_channel_and_match_has_their_events_among_many_others() -> None:
    events = recent_events()
    with events.watch() as cursor:
        add(events, 2, match=2)
        add(events, 400)
        add(events, 3, "weather", match=2)
        add(events, 400)
        assert numbers(events.since(cursor, match="2")) == [1, 2, 403, 404, 405]
        assert numbers(events.since(cursor, channel="weather")) == [403, 404, 405]
        assert numbers(events.since(cursor, channel="match_change", match="2")) == [1, 2]
        assert events.since(cursor, channel="nothing") == EventsPage([], 0, 805)


def test_events_that_are_not_kept_any_more_count_as_skipped() -> None:
    events = recent_events()
    with events.watch() as cursor:
        add(events, 1, match=2)
        add(events, 1500)
        assert events.since(cursor, match="2") == EventsPage([], 501, 1501)


def test_nothing_is_kept_while_nobody_watches() -> None:
    events = recent_events()
    assert not events.watchers
    with ExitStack() as stack:
        stack.enter_context(events.watch())
        with events.watch():
            add(events, 2)
        assert events.watchers
    assert not events.watchers
    with events.watch() as cursor:
        assert events.since(cursor) == EventsPage([], 0, 2)
        assert events.since(0).skipped == 2
