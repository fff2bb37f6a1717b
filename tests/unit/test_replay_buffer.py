"""The last events that a worker keeps for clients that reconnect."""

import msgspec

from app.broadcast.messages import Update
from app.broadcast.replay_buffer import ReplayBuffer
from app.broadcast.router import Router
from notifymux.event import Event, EventId

ROUTER = Router("match_id")


def buffer_of(*sequences: int, limit: int = 10_000, match: str = "1") -> ReplayBuffer:
    """Return a buffer that was restarted at 7-0 and has recorded events of one match."""
    buffer = ReplayBuffer(limit)
    buffer.restart(EventId(7, 0))
    for sequence in sequences:
        record(buffer, sequence, match)
    return buffer


def record(buffer: ReplayBuffer, sequence: int | None, match: str = "1") -> None:
    payload = msgspec.Raw(b'{"match_id": "%b", "data": "%b"}' % (match.encode(), b"x" * 70))
    update = ROUTER.route(Event("match_change", payload, f"7-{sequence}" if sequence else None))
    assert update
    buffer.record(update)
    if sequence:
        buffer.position = EventId(7, sequence)


def sequences(updates: list[Update] | None) -> list[str | None] | None:
    if updates is None:
        return None
    return [update.event_id and update.event_id.removeprefix("7-") for update in updates]


def test_the_events_after_an_id_are_those_of_the_match_and_in_order() -> None:
    buffer = buffer_of(1, 2)
    record(buffer, 3, "2")
    record(buffer, 4)
    assert sequences(buffer.after("1", EventId(7, 1))) == ["2", "4"]
    assert sequences(buffer.after("1", EventId(7, 0))) == ["1", "2", "4"]
    assert sequences(buffer.after("1", EventId(7, 4))) == []
    assert sequences(buffer.after("nobody's", EventId(7, 0))) == []


def test_an_event_without_an_id_is_not_after_an_id_but_since_a_cursor() -> None:
    buffer = buffer_of(1)
    cursor = buffer.cursor
    record(buffer, None)
    record(buffer, 2)
    assert sequences(buffer.after("1", EventId(7, 1))) == ["2"]
    assert sequences(buffer.since("1", cursor)) == [None, "2"]


def test_another_epoch_and_what_was_before_the_restart_are_unknown() -> None:
    buffer = buffer_of(1, 2)
    assert buffer.after("1", EventId(6, 9)) is None
    assert buffer.after("1", EventId(8, 1)) is None
    buffer.restart(EventId(7, 5))
    assert buffer.after("1", EventId(7, 4)) is None
    assert buffer.after("1", EventId(7, 5)) == []


def test_without_ids_nothing_is_after_an_id() -> None:
    buffer = ReplayBuffer(10_000)
    buffer.restart(None)
    record(buffer, None)
    assert buffer.after("1", EventId(7, 0)) is None
    assert sequences(buffer.since("1", buffer.cursor)) == []


def test_the_oldest_events_are_dropped_and_known_to_be_missing() -> None:
    buffer = buffer_of(limit=1_200)  # bytes, of two events with their overhead
    start = buffer.cursor
    for sequence in (1, 2, 3):
        record(buffer, sequence)
    assert buffer.since("1", start) is None
    assert not buffer.contains(start)
    assert buffer.after("1", EventId(7, 0)) is None
    assert sequences(buffer.after("1", EventId(7, 1))) == ["2", "3"]


def test_an_event_larger_than_the_limit_is_dropped_at_once() -> None:
    buffer = buffer_of(limit=300)
    record(buffer, 1)
    assert buffer.after("1", EventId(7, 0)) is None
    assert buffer.after("1", EventId(7, 1)) == []


def test_a_cursor_from_before_a_restart_is_not_contained_even_if_nothing_was_recorded() -> None:
    buffer = buffer_of()
    cursor = buffer.cursor
    buffer.restart(EventId(9, 1))
    assert not buffer.contains(cursor)
    assert buffer.since("1", cursor) is None


def test_newer_events_are_those_of_the_match() -> None:
    buffer = buffer_of(1)
    cursor = buffer.cursor
    record(buffer, 2, "2")
    assert not buffer.has_newer("1", cursor)
    assert buffer.has_newer("2", cursor)
    assert not buffer.has_newer("nobody's", cursor)


def test_the_position_moves_on_over_events_that_are_not_recorded() -> None:
    buffer = buffer_of(1)
    buffer.position = EventId(7, 5)
    assert buffer.after("1", EventId(7, 1)) == []
