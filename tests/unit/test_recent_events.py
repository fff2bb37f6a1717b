"""The last events, for who watches."""

import json
from contextlib import ExitStack

import msgspec

from app.broadcast.router import Router
from app.monitoring.recent_events import EventsPage, RecentEvents
from notifymux.event import Event


def tail() -> RecentEvents:
    return RecentEvents(Router("match_id"))


def note(tail: RecentEvents, count: int, channel: str = "match_change", match: object = 1) -> None:
    for number in range(count):
        payload = msgspec.Raw(json.dumps({"match_id": match, "n": number}).encode())
        tail.note([Event(channel, payload, f"7-{tail.mark + 1}", 1.5)])


def numbers(look: EventsPage) -> list[int]:
    return [int(event["id"].partition("-")[2]) for event in look.events]


def test_what_is_shown_of_an_event() -> None:
    events = tail()
    payload = '{"match_id": "final", "x": "<b>"}'
    with events.watch() as mark:
        events.note([Event("match_change", msgspec.Raw(payload.encode()), "7-1", 1.5)])
        events.note([Event("weather", msgspec.Raw(b'"rain"'), None, None)])
        look = events.look(mark)
    assert look.events == [
        {"at": 1.5, "id": "7-1", "channel": "match_change", "match": "final", "payload": payload},
        {"at": None, "id": None, "channel": "weather", "match": None, "payload": '"rain"'},
    ]


def test_a_long_payload_is_cut_between_characters() -> None:
    events = tail()
    with events.watch() as mark:
        events.note([Event("a", msgspec.Raw(b'"' + "ü".encode() * 2000 + b'"'))])
        [event] = events.look(mark).events
    assert event["payload"] == '"' + "ü" * 499


def test_each_look_goes_on_where_the_last_one_ended() -> None:
    events = tail()
    with events.watch() as mark:
        note(events, 3)
        first = events.look(mark)
        note(events, 2)
        second = events.look(first.mark)
        assert (numbers(first), numbers(second)) == ([1, 2, 3], [4, 5])
        assert events.look(second.mark) == EventsPage([], 0, 5)


def test_of_many_the_newest_are_shown_and_the_rest_is_counted() -> None:
    events = tail()
    with events.watch() as mark:
        note(events, 5000)
        look = events.look(mark)
    assert numbers(look) == list(range(4951, 5001))
    assert look.skipped == 4950


def test_a_filter_finds_its_channel_and_match_among_many_others() -> None:
    events = tail()
    with events.watch() as mark:
        note(events, 2, match=2)
        note(events, 400)
        note(events, 3, "weather", match=2)
        note(events, 400)
        assert numbers(events.look(mark, match="2")) == [1, 2, 403, 404, 405]
        assert numbers(events.look(mark, channel="weather")) == [403, 404, 405]
        assert numbers(events.look(mark, channel="match_change", match="2")) == [1, 2]
        assert events.look(mark, channel="nothing") == EventsPage([], 0, 805)


def test_what_a_filter_could_not_look_at_any_more_counts_as_skipped() -> None:
    events = tail()
    with events.watch() as mark:
        note(events, 1, match=2)
        note(events, 1500)
        assert events.look(mark, match="2") == EventsPage([], 501, 1501)


def test_nothing_is_kept_once_nobody_watches() -> None:
    events = tail()
    assert not events.watched
    with ExitStack() as stack:
        stack.enter_context(events.watch())
        with events.watch():
            note(events, 2)
        assert events.watched
    assert not events.watched
    with events.watch() as mark:
        assert events.look(mark) == EventsPage([], 0, 2)
        assert events.look(0).skipped == 2
