"""A worker's position in the stream: every event once and in order, or a gap (rule 13)."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifymux.event import Event, EventId
from notifymux.progress_timeout import POLL_SECONDS, TAKEOVER_TIMEOUT_SECONDS
from notifymux.sequence_tracker import Gap, GapReason, Outcome, SequenceTracker, StreamEvent

E = 1000  # an epoch


def event(sequence: int, epoch: int = E) -> Event:
    return Event("c", id=str(EventId(epoch, sequence)))


def entries(sequences: Iterable[int], epoch: int = E) -> list[StreamEvent]:
    return [StreamEvent(EventId(epoch, sequence), event(sequence, epoch)) for sequence in sequences]


def tracker_at(sequence: int, epoch: int = E) -> SequenceTracker:
    """A tracker that has delivered up to there."""
    tracker = SequenceTracker()
    tracker.start(EventId(epoch, sequence - 1))
    assert tracker.read(entries([sequence], epoch), None, 0.0) == [event(sequence, epoch)]
    return tracker


def wait_out(
    tracker: SequenceTracker, stream: list[StreamEvent], head: EventId | None, now: float
) -> tuple[float, list[Outcome]]:
    """Read the same entries whenever a read is due, until there is an outcome; return how long that took."""
    started = now
    while not (outcomes := tracker.read(stream, head, now)):
        assert now < started + 10 * TAKEOVER_TIMEOUT_SECONDS
        while not tracker.is_read_due(now):
            now += POLL_SECONDS / 5
    return now - started, outcomes


def test_before_the_start_nothing_is_delivered_and_a_read_is_due() -> None:
    tracker = SequenceTracker()
    assert tracker.is_read_due(0.0)
    assert tracker.on_published([event(1)]) == []
    assert tracker.is_read_due(0.0)
    assert tracker.position is None


@pytest.mark.parametrize("head", [None, EventId(E, 5)])
def test_it_starts_after_the_streams_last_entry(head: EventId | None) -> None:
    tracker = SequenceTracker()
    assert tracker.start(head) == (head or EventId(0, 0))
    assert tracker.read([], head, 0.0) == []
    assert not tracker.is_read_due(0.0)
    assert tracker.position == (head or EventId(0, 0))


def test_whoever_starts_beyond_the_end_of_an_older_copy_of_the_stream_goes_on_after_the_start() -> None:
    tracker = SequenceTracker()
    tracker.start(EventId(E, 5))
    assert outcomes_for(60.0, tracker, EventId(E, 3)) == []
    assert tracker.on_published([event(4), event(5), event(6)]) == [event(6)]


def test_whoever_starts_at_a_place_that_the_stream_has_lost_gets_a_gap_first() -> None:
    tracker = SequenceTracker()
    tracker.start(EventId(E, 5))
    _, outcomes = wait_out(tracker, entries([8]), None, 0.0)
    assert outcomes == [Gap(EventId(E, 7), GapReason.EVENTS_MISSING), event(8)]


def test_the_next_event_is_delivered_at_once() -> None:
    tracker = tracker_at(5)
    assert tracker.on_published([event(6)]) == [event(6)]
    assert tracker.on_published([event(7)]) == [event(7)]
    assert tracker.position == EventId(E, 7)
    assert not tracker.is_read_due(0.0)


def test_an_event_without_an_id_is_delivered_at_any_position() -> None:
    unnumbered = Event("c")
    assert SequenceTracker().on_published([unnumbered]) == [unnumbered]
    tracker = tracker_at(5)
    assert tracker.on_published([unnumbered]) == [unnumbered]
    assert tracker.position == EventId(E, 5)


@pytest.mark.parametrize("sequence", [1, 4, 5])
def test_a_repeated_event_is_dropped_and_counted(sequence: int) -> None:
    tracker = tracker_at(5)
    assert tracker.on_published([event(sequence)]) == []
    assert tracker.suppressed == 1
    assert not tracker.is_read_due(0.0)
    assert tracker.position == EventId(E, 5)


def test_an_event_with_a_malformed_id_is_dropped_and_the_others_are_delivered(caplog: pytest.LogCaptureFixture) -> None:
    assert tracker_at(5).on_published([event(6), Event("c", id="x"), event(7)]) == [event(6), event(7)]
    assert "'x' is not an event id" in caplog.text


def test_of_several_published_events_all_that_follow_the_position_are_delivered() -> None:
    tracker = tracker_at(5)
    unnumbered = Event("c")
    published = [event(6), unnumbered, event(6), event(7), event(9), unnumbered]
    assert tracker.on_published(published) == [event(6), unnumbered, event(7), unnumbered]
    assert tracker.position == EventId(E, 7)
    assert tracker.is_read_due(0.0)
    assert tracker.suppressed == 1


def test_after_a_jump_the_stream_is_read_and_what_is_read_is_delivered_once() -> None:
    tracker = tracker_at(5)
    assert tracker.on_published([event(8)]) == []
    assert tracker.is_read_due(0.0)
    assert tracker.read(entries([6, 7, 8]), None, 0.0) == [event(6), event(7), event(8)]
    assert not tracker.is_read_due(0.0)
    assert tracker.on_published([event(8)]) == []
    assert tracker.on_published([event(9)]) == [event(9)]


def test_a_requested_read_is_due_once() -> None:
    tracker = tracker_at(5)
    tracker.request_read()
    assert tracker.is_read_due(0.0)
    assert tracker.read([], EventId(E, 5), 0.0) == []
    assert not tracker.is_read_due(100.0)


def test_missing_events_are_a_gap_after_the_timeout() -> None:
    tracker = tracker_at(5)
    took, outcomes = wait_out(tracker, entries([8, 9]), None, 100.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)
    assert outcomes == [Gap(EventId(E, 7), GapReason.EVENTS_MISSING), event(8), event(9)]
    assert tracker.position == EventId(E, 9)
    assert not tracker.is_read_due(200.0)


def test_while_events_are_missing_the_stream_is_polled_and_nothing_is_delivered() -> None:
    tracker = tracker_at(5)
    assert tracker.read(entries([8]), None, 100.0) == []
    assert not tracker.is_read_due(100.0 + POLL_SECONDS / 2)
    assert tracker.is_read_due(100.0 + POLL_SECONDS)
    assert tracker.on_published([event(9)]) == []


def test_missing_events_that_are_restored_in_time_are_no_gap() -> None:
    tracker = tracker_at(5)
    now = 100.0
    while now < 100.0 + TAKEOVER_TIMEOUT_SECONDS - POLL_SECONDS:
        assert tracker.read(entries([8]), None, now) == []
        now += POLL_SECONDS
    assert tracker.read(entries([6, 7, 8]), None, now) == [event(6), event(7), event(8)]


def test_each_gap_has_its_own_timeout() -> None:
    tracker = tracker_at(5)
    wait_out(tracker, entries([8]), None, 100.0)
    took, outcomes = wait_out(tracker, entries([11]), None, 200.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)
    assert outcomes == [Gap(EventId(E, 10), GapReason.EVENTS_MISSING), event(11)]


def test_the_events_before_missing_ones_are_delivered_at_once() -> None:
    tracker = tracker_at(5)
    assert tracker.read(entries([6, 7, 9]), None, 0.0) == [event(6), event(7)]
    assert tracker.position == EventId(E, 7)


def test_the_timeout_does_not_run_while_redis_is_away() -> None:
    tracker = tracker_at(5)
    assert tracker.read(entries([8]), None, 100.0) == []
    tracker.interrupted()
    assert tracker.is_read_due(200.0)
    took, outcomes = wait_out(tracker, entries([8]), None, 200.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)
    assert len(outcomes) == 2


def test_an_outage_pauses_the_timeout_and_does_not_reset_it() -> None:
    tracker = tracker_at(5)
    now = 100.0
    while now < 100.0 + TAKEOVER_TIMEOUT_SECONDS / 2:
        assert tracker.read(entries([8]), None, now) == []
        now += POLL_SECONDS
    tracker.interrupted()
    took, _ = wait_out(tracker, entries([8]), None, 1000.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS / 2, abs=2 * POLL_SECONDS)


def test_the_timeout_does_not_run_while_the_process_is_suspended() -> None:
    tracker = tracker_at(5)
    assert tracker.read(entries([8]), None, 100.0) == []
    took, _ = wait_out(tracker, entries([8]), None, 1000.0)
    assert took >= TAKEOVER_TIMEOUT_SECONDS - 3 * POLL_SECONDS


def test_after_an_outage_a_read_is_due() -> None:
    tracker = tracker_at(5)
    tracker.interrupted()
    assert tracker.is_read_due(0.0)
    assert tracker.read(entries([6]), None, 0.0) == [event(6)]


def outcomes_for(seconds: float, tracker: SequenceTracker, head: EventId | None) -> list[Outcome]:
    """Read a stream that ends there, whenever a read is due and four times a second, and return what comes of it."""
    outcomes: list[Outcome] = []
    now = 100.0
    while now < 100.0 + seconds:
        outcomes += tracker.read([], head, now)
        now += POLL_SECONDS
    return outcomes


@pytest.mark.parametrize("head", [None, EventId(E, 3)])
def test_of_a_stream_that_lacks_what_was_delivered_nothing_is_missing_however_long_it_does(
    head: EventId | None,
) -> None:
    tracker = tracker_at(5)
    assert outcomes_for(60.0, tracker, head) == []
    assert not tracker.is_read_due(200.0), "what is appended is published"
    assert tracker.position == EventId(E, 5)
    assert tracker.on_published([event(4), event(5), event(6)]) == [event(6)], "a listener gives it the same ids"


def test_a_begin_after_a_stream_that_lacked_what_was_delivered_is_a_gap() -> None:
    tracker = tracker_at(5)
    assert outcomes_for(60.0, tracker, EventId(E, 3)) == []
    begin = EventId(E + 7, 1)
    assert tracker.read(entries([1, 2], E + 7), None, 200.0) == [Gap(begin, GapReason.EPOCH), event(2, E + 7)]


def test_a_stream_that_goes_on_in_an_earlier_epoch_is_a_gap_after_the_timeout() -> None:
    tracker = tracker_at(5)
    tracker.request_read()
    took, outcomes = wait_out(tracker, [], EventId(E - 1, 900), 100.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)
    assert outcomes == [Gap(EventId(E - 1, 900), GapReason.STREAM_LOST)]
    assert tracker.on_published([event(901, E - 1)]) == [event(901, E - 1)]


def test_a_stream_that_goes_on_in_an_earlier_epoch_is_no_loss_while_the_worker_is_fed() -> None:
    tracker = tracker_at(5)
    tracker.is_fed = True
    assert outcomes_for(60.0, tracker, EventId(E - 1, 900)) == []
    assert tracker.on_published([event(6)]) == [event(6)]
    tracker.is_fed = False
    assert outcomes_for(60.0, tracker, EventId(E - 1, 900)) == [Gap(EventId(E - 1, 900), GapReason.STREAM_LOST)]


def test_an_older_copy_that_ends_in_an_epoch_that_was_left_is_no_loss_unless_it_goes_on_there() -> None:
    tracker = tracker_at(5)
    assert tracker.read(entries([1, 2], E + 7), None, 0.0) == [Gap(EventId(E + 7, 1), GapReason.EPOCH), event(2, E + 7)]
    assert outcomes_for(60.0, tracker, EventId(E, 3)) == []
    assert outcomes_for(60.0, tracker, EventId(E, 5)) == []
    assert tracker.on_published([event(5), event(1, E + 7), event(2, E + 7), event(3, E + 7)]) == [event(3, E + 7)]
    assert outcomes_for(60.0, tracker, EventId(E, 6)) == [Gap(EventId(E, 6), GapReason.STREAM_LOST)]
    assert tracker.on_published([event(7)]) == [event(7)]


@pytest.mark.parametrize(
    ("back", "expected"),
    [
        ([1, 2], [Gap(EventId(E, 5), GapReason.EPOCH)]),
        ([5, 6], [Gap(EventId(E, 5), GapReason.EPOCH), event(6)]),
        ([6, 7], [Gap(EventId(E, 5), GapReason.EPOCH), event(6), event(7)]),
        ([8, 9], [Gap(EventId(E, 7), GapReason.EPOCH), event(8), event(9)]),
    ],
)
def test_an_epoch_that_comes_back_is_a_gap_and_nothing_of_it_is_delivered_again(
    back: list[int], expected: list[Outcome]
) -> None:
    tracker = tracker_at(5)
    wait_out(tracker, [], EventId(E - 1, 900), 100.0)
    assert tracker.on_published([event(901, E - 1)]) == [event(901, E - 1)]
    assert tracker.read(entries(back), None, 200.0) == expected
    assert tracker.position == EventId(E, max(5, *back))


def test_a_strangers_entry_in_an_epoch_that_was_left_does_not_bring_it_back() -> None:
    tracker = tracker_at(5)
    wait_out(tracker, [], EventId(E - 1, 900), 100.0)
    assert tracker.read([StreamEvent(EventId(E, 99), event(99), is_event=False)], None, 200.0) == []
    assert tracker.position == EventId(E - 1, 900)


def test_of_the_epochs_that_were_left_only_the_last_are_remembered() -> None:
    tracker = tracker_at(5)
    for epoch in range(E + 1, E + 100):
        tracker.read(entries([1], epoch), None, 0.0)
    assert sorted(tracker._left) == list(range(E + 83, E + 99))


def test_a_lost_stream_that_is_restored_is_no_gap_and_nothing_is_delivered_twice() -> None:
    tracker = tracker_at(5)
    assert tracker.read([], None, 100.0) == []
    assert tracker.position == EventId(E, 5)
    assert tracker.read(entries([6, 7]), None, 100.0 + TAKEOVER_TIMEOUT_SECONDS / 2) == [event(6), event(7)]


def test_the_timeout_starts_anew_when_what_followed_the_missing_events_is_lost_too() -> None:
    tracker = tracker_at(5)
    now = 100.0
    while now < 100.0 + TAKEOVER_TIMEOUT_SECONDS - 2 * POLL_SECONDS:
        assert tracker.read(entries([8]), None, now) == []
        now += POLL_SECONDS
    assert tracker.read([], EventId(E, 4), now) == []
    took, _ = wait_out(tracker, entries([8]), None, now)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)


def test_a_new_epoch_is_a_gap_at_once_and_its_events_follow() -> None:
    tracker = tracker_at(5)
    assert tracker.read(entries([6]) + entries([1, 2, 3], E + 7), None, 0.0) == [
        event(6),
        Gap(EventId(E + 7, 1), GapReason.EPOCH),
        event(2, E + 7),
        event(3, E + 7),
    ]
    assert tracker.position == EventId(E + 7, 3)
    assert not tracker.is_read_due(0.0)


def test_a_published_event_of_a_new_epoch_makes_a_read_due() -> None:
    tracker = tracker_at(5)
    assert tracker.on_published([event(1, E + 7)]) == []
    assert tracker.is_read_due(0.0)


def test_an_epoch_whose_first_events_are_missing_is_a_gap_after_the_timeout() -> None:
    tracker = tracker_at(5)
    took, outcomes = wait_out(tracker, entries([4, 5], E + 7), None, 100.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)
    assert outcomes == [
        Gap(EventId(E + 7, 3), GapReason.EVENTS_MISSING),
        event(4, E + 7),
        event(5, E + 7),
    ]


def test_the_first_epoch_of_an_empty_stream_starts_with_a_gap() -> None:
    tracker = SequenceTracker()
    tracker.start(None)
    assert tracker.read(entries([1, 2]), None, 0.0) == [Gap(EventId(E, 1), GapReason.EPOCH), event(2)]


@given(st.data(), st.integers(1, 40))
def test_whatever_is_published_everything_is_delivered_once_and_in_order(data: st.DataObject, count: int) -> None:
    tracker = tracker_at(1)
    stream: list[StreamEvent] = entries([1])
    delivered: list[Outcome] = []
    for sequence in range(2, count + 2):
        stream += entries([sequence])
        if data.draw(st.booleans(), "published"):
            delivered += tracker.on_published([event(sequence)])
        if data.draw(st.booleans(), "published again"):
            first = data.draw(st.integers(1, sequence))
            delivered += tracker.on_published([event(number) for number in range(first, sequence + 1)])
        if tracker.is_read_due(0.0) and data.draw(st.booleans(), "read"):
            delivered += read(tracker, stream)
    tracker.request_read()
    delivered += read(tracker, stream)
    assert delivered == [event(sequence) for sequence in range(2, count + 2)]


def read(tracker: SequenceTracker, stream: list[StreamEvent]) -> list[Outcome]:
    """Read at most three entries at a time, as from Redis."""
    outcomes: list[Outcome] = []
    while tracker.is_read_due(0.0):
        assert tracker.position
        after = [entry for entry in stream if entry.id > tracker.position][:3]
        outcomes += tracker.read(after, None if after else stream[-1].id, 0.0)
        if len(after) == 3:
            tracker.request_read()
    return outcomes


def test_messages_of_an_epoch_that_the_stream_does_not_have_cause_one_read_a_second() -> None:
    tracker, reads, now = tracker_at(5), 0, 10.0
    for number in range(1000):
        now += 0.01
        assert tracker.on_published([event(number + 1, E + 7 if number % 2 else E - 7)]) == []
        if tracker.is_read_due(now):
            reads += 1
            assert tracker.read([], EventId(E, 5), now) == []
    assert 9 <= reads <= 11
    assert tracker.hears_others
    assert tracker.suppressed == 0
    assert tracker.on_published([event(6)]) == [event(6)], "its own events go on"
    assert tracker.on_published([event(8)]) == []
    assert tracker.is_read_due(now), "and an event that is missing is read at once"


def test_any_number_of_made_up_epochs_causes_no_more_reads_and_is_not_remembered() -> None:
    tracker, reads, now = tracker_at(5), 0, 10.0
    for epoch in range(5000, 6000):
        now += 0.1
        tracker.on_published([event(1, epoch)])
        if tracker.is_read_due(now):
            reads += 1
            tracker.read([], EventId(E, 5), now)
    assert 90 <= reads <= 101
    assert len(tracker._reads_in_vain) <= 16


def test_a_new_epoch_of_its_own_is_read_at_once_and_is_no_other_environments() -> None:
    tracker = tracker_at(5)
    for epoch in range(E + 1, E + 6):
        tracker.on_published([event(1, epoch)])
        assert tracker.is_read_due(10.0)
        outcomes = tracker.read(entries([1], epoch), None, 10.0)
        assert outcomes == [Gap(EventId(epoch, 1), GapReason.EPOCH)]
        assert not tracker.is_read_due(10.0)
    assert not tracker.hears_others


def test_a_new_epoch_that_begins_beside_another_environment_is_found_within_a_second() -> None:
    tracker = tracker_at(5)
    for now in (10.0, 11.0, 12.0):
        tracker.on_published([event(1, E + 7)])
        tracker.read([], EventId(E, 5), now)
    tracker.on_published([event(1, E + 9)])
    assert not tracker.is_read_due(12.5)
    assert tracker.is_read_due(13.0)
    assert tracker.read(entries([1], E + 9), None, 13.0) == [Gap(EventId(E + 9, 1), GapReason.EPOCH)]


def test_a_strangers_entry_far_ahead_begins_no_epoch_and_what_follows_is_delivered() -> None:
    tracker = tracker_at(5)
    stranger = StreamEvent(EventId(E + 9, 1), event(1, E + 9), is_event=False)
    assert tracker.read([stranger], None, 0.0) == []
    assert tracker.on_published([event(6)]) == [event(6)]
