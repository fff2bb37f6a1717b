"""What a worker remembers."""

import msgspec

from app.broadcast.messages import Router, Update
from app.broadcast.replay_buffer import ReplayBuffer
from notifymux.event import Event, EventId

ROUTER = Router("match_id")


def history(*numbers: int, limit: int = 10_000, match: str = "1") -> ReplayBuffer:
    """A history that began after 7-0 and recorded events of one match."""
    remembered = ReplayBuffer(limit)
    remembered.restart(EventId(7, 0))
    for number in numbers:
        record(remembered, number, match)
    return remembered


def record(remembered: ReplayBuffer, number: int | None, match: str = "1") -> None:
    payload = msgspec.Raw(b'{"match_id": "%b", "data": "%b"}' % (match.encode(), b"x" * 70))
    update = ROUTER.route(Event("match_change", payload, f"7-{number}" if number else None))
    assert update
    remembered.record(update)
    if number:
        remembered.advance(EventId(7, number))


def ids(updates: list[Update] | None) -> list[str | None] | None:
    """Their sequences."""
    if updates is None:
        return None
    return [update.event_id and update.event_id.removeprefix("7-") for update in updates]


def test_the_events_after_a_number_are_those_of_the_match_and_in_order() -> None:
    remembered = history(1, 2)
    record(remembered, 3, "2")
    record(remembered, 4)
    assert ids(remembered.after("1", EventId(7, 1))) == ["2", "4"]
    assert ids(remembered.after("1", EventId(7, 0))) == ["1", "2", "4"]
    assert ids(remembered.after("1", EventId(7, 4))) == []
    assert ids(remembered.after("nobody's", EventId(7, 0))) == []


def test_what_has_no_number_is_not_among_them_but_is_since_a_mark() -> None:
    remembered = history(1)
    mark = remembered.mark
    record(remembered, None)
    record(remembered, 2)
    assert ids(remembered.after("1", EventId(7, 1))) == ["2"]
    assert ids(remembered.since("1", mark)) == [None, "2"]


def test_nothing_is_said_of_another_epoch_or_of_what_was_before() -> None:
    remembered = history(1, 2)
    assert remembered.after("1", EventId(6, 9)) is None
    assert remembered.after("1", EventId(8, 1)) is None
    remembered.restart(EventId(7, 5))
    assert remembered.after("1", EventId(7, 4)) is None
    assert remembered.after("1", EventId(7, 5)) == []


def test_without_numbers_nothing_is_after_anything() -> None:
    remembered = ReplayBuffer(10_000)
    remembered.restart(None)
    record(remembered, None)
    assert remembered.after("1", EventId(7, 0)) is None
    assert ids(remembered.since("1", remembered.mark)) == []


def test_the_oldest_make_room_and_are_known_to_be_forgotten() -> None:
    remembered = history(limit=1_200)  # two events with what they take besides their texts
    start = remembered.mark
    for number in (1, 2, 3):
        record(remembered, number)
    assert remembered.since("1", start) is None
    assert not remembered.covers(start)
    assert remembered.after("1", EventId(7, 0)) is None
    assert ids(remembered.after("1", EventId(7, 1))) == ["2", "3"]


def test_an_event_that_is_larger_than_the_bound_is_forgotten_at_once() -> None:
    remembered = history(limit=300)
    record(remembered, 1)
    assert remembered.after("1", EventId(7, 0)) is None
    assert remembered.after("1", EventId(7, 1)) == []


def test_a_mark_from_before_a_restart_is_not_covered_though_nothing_was_recorded() -> None:
    remembered = history()
    mark = remembered.mark
    remembered.restart(EventId(9, 1))
    assert not remembered.covers(mark)
    assert remembered.since("1", mark) is None


def test_news_are_a_matchs_own() -> None:
    remembered = history(1)
    mark = remembered.mark
    record(remembered, 2, "2")
    assert not remembered.has_news("1", mark)
    assert remembered.has_news("2", mark)
    assert not remembered.has_news("nobody's", mark)


def test_the_position_moves_on_over_events_that_are_not_recorded() -> None:
    remembered = history(1)
    remembered.advance(EventId(7, 5))
    assert remembered.position == EventId(7, 5)
    assert remembered.after("1", EventId(7, 1)) == []
