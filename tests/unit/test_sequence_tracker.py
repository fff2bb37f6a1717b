"""A worker's place in the stream: the stream is the truth, pub/sub the prompt (rule 13)."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.progress_timeout import POLL_SECONDS, TAKEOVER_TIMEOUT_SECONDS
from app.sources.base import GapReason
from app.sources.sequence_tracker import Gap, Outcome, SequenceTracker, StreamEvent
from notifymux.event import Event, EventId

E = 1000  # an epoch


def event(sequence: int, epoch: int = E) -> Event:
    return Event("c", id=str(EventId(epoch, sequence)))


def entries(sequences: Iterable[int], epoch: int = E) -> list[StreamEvent]:
    return [StreamEvent(EventId(epoch, sequence), event(sequence, epoch)) for sequence in sequences]


def follower_at(sequence: int, epoch: int = E) -> SequenceTracker:
    """One that has delivered up to there."""
    follower = SequenceTracker()
    follower.start(EventId(epoch, sequence - 1))
    assert follower.read(entries([sequence], epoch), None, 0.0) == [event(sequence, epoch)]
    return follower


def wait_out(
    follower: SequenceTracker, stream: list[StreamEvent], head: EventId | None, now: float
) -> tuple[float, list[Outcome]]:
    """Reads the same whenever it is due, until there is an outcome; how long that took."""
    started = now
    while not (outcomes := follower.read(stream, head, now)):
        assert now < started + 10 * TAKEOVER_TIMEOUT_SECONDS
        while not follower.due(now):
            now += POLL_SECONDS / 5
    return now - started, outcomes


def test_before_it_knows_its_place_it_delivers_nothing_and_wants_to_read() -> None:
    follower = SequenceTracker()
    assert follower.due(0.0)
    assert follower.prompt([event(1)]) == []
    assert follower.due(0.0)
    assert follower.position is None


@pytest.mark.parametrize("head", [None, EventId(E, 5)])
def test_it_starts_after_the_streams_head(head: EventId | None) -> None:
    follower = SequenceTracker()
    assert follower.start(head) == (head or EventId(0, 0))
    assert follower.read([], head, 0.0) == []
    assert not follower.due(0.0)
    assert follower.position == (head or EventId(0, 0))


def test_the_next_event_is_delivered_at_once() -> None:
    follower = follower_at(5)
    assert follower.prompt([event(6)]) == [event(6)]
    assert follower.prompt([event(7)]) == [event(7)]
    assert follower.position == EventId(E, 7)
    assert not follower.due(0.0)


def test_an_event_without_a_number_is_delivered_wherever_it_is() -> None:
    unnumbered = Event("c")
    assert SequenceTracker().prompt([unnumbered]) == [unnumbered]
    follower = follower_at(5)
    assert follower.prompt([unnumbered]) == [unnumbered]
    assert follower.position == EventId(E, 5)


@pytest.mark.parametrize("sequence", [1, 4, 5])
def test_a_repeated_event_is_dropped_and_counted(sequence: int) -> None:
    follower = follower_at(5)
    assert follower.prompt([event(sequence)]) == []
    assert follower.suppressed == 1
    assert not follower.due(0.0)
    assert follower.position == EventId(E, 5)


def test_what_spells_no_id_is_refused_and_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert follower_at(5).prompt([event(6), Event("c", id="x"), event(7)]) == [event(6), event(7)]
    assert "'x' is not an event id" in caplog.text


def test_of_what_came_at_once_everything_that_follows_is_delivered() -> None:
    follower = follower_at(5)
    unnumbered = Event("c")
    published = [event(6), unnumbered, event(6), event(7), event(9), unnumbered]
    assert follower.prompt(published) == [event(6), unnumbered, event(7), unnumbered]
    assert follower.position == EventId(E, 7)
    assert follower.due(0.0)
    assert follower.suppressed == 1


def test_after_a_jump_it_reads_and_what_it_reads_comes_once() -> None:
    follower = follower_at(5)
    assert follower.prompt([event(8)]) == []
    assert follower.due(0.0)
    assert follower.read(entries([6, 7, 8]), None, 0.0) == [event(6), event(7), event(8)]
    assert not follower.due(0.0)
    assert follower.prompt([event(8)]) == []
    assert follower.prompt([event(9)]) == [event(9)]


def test_it_reads_when_it_is_told_to_look_and_not_after() -> None:
    follower = follower_at(5)
    follower.look()
    assert follower.due(0.0)
    assert follower.read([], EventId(E, 5), 0.0) == []
    assert not follower.due(100.0)


def test_a_hole_waits_one_bound_and_becomes_a_gap() -> None:
    follower = follower_at(5)
    took, outcomes = wait_out(follower, entries([8, 9]), None, 100.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)
    assert outcomes == [Gap(EventId(E, 7), GapReason.EVENTS_MISSING), event(8), event(9)]
    assert follower.position == EventId(E, 9)
    assert not follower.due(200.0)


def test_while_it_waits_for_a_hole_to_be_closed_it_reads_now_and_then_and_delivers_nothing() -> None:
    follower = follower_at(5)
    assert follower.read(entries([8]), None, 100.0) == []
    assert not follower.due(100.0 + POLL_SECONDS / 2)
    assert follower.due(100.0 + POLL_SECONDS)
    assert follower.prompt([event(9)]) == []


def test_a_hole_that_is_closed_in_time_is_no_gap() -> None:
    follower = follower_at(5)
    now = 100.0
    while now < 100.0 + TAKEOVER_TIMEOUT_SECONDS - POLL_SECONDS:
        assert follower.read(entries([8]), None, now) == []
        now += POLL_SECONDS
    assert follower.read(entries([6, 7, 8]), None, now) == [event(6), event(7), event(8)]


def test_each_hole_has_a_bound_of_its_own() -> None:
    follower = follower_at(5)
    wait_out(follower, entries([8]), None, 100.0)
    took, outcomes = wait_out(follower, entries([11]), None, 200.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)
    assert outcomes == [Gap(EventId(E, 10), GapReason.EVENTS_MISSING), event(11)]


def test_what_is_whole_before_a_hole_is_delivered_at_once() -> None:
    follower = follower_at(5)
    assert follower.read(entries([6, 7, 9]), None, 0.0) == [event(6), event(7)]
    assert follower.position == EventId(E, 7)


def test_no_bound_runs_while_redis_is_away() -> None:
    follower = follower_at(5)
    assert follower.read(entries([8]), None, 100.0) == []
    follower.interrupted()
    assert follower.due(200.0)
    took, outcomes = wait_out(follower, entries([8]), None, 200.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)
    assert len(outcomes) == 2


def test_an_outage_in_the_middle_of_a_bound_stops_it_and_no_more() -> None:
    follower = follower_at(5)
    now = 100.0
    while now < 100.0 + TAKEOVER_TIMEOUT_SECONDS / 2:
        assert follower.read(entries([8]), None, now) == []
        now += POLL_SECONDS
    follower.interrupted()
    took, _ = wait_out(follower, entries([8]), None, 1000.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS / 2, abs=2 * POLL_SECONDS)


def test_a_process_that_slept_has_not_waited() -> None:
    follower = follower_at(5)
    assert follower.read(entries([8]), None, 100.0) == []
    took, _ = wait_out(follower, entries([8]), None, 1000.0)
    assert took >= TAKEOVER_TIMEOUT_SECONDS - 3 * POLL_SECONDS


def test_after_an_outage_it_reads() -> None:
    follower = follower_at(5)
    follower.interrupted()
    assert follower.due(0.0)
    assert follower.read(entries([6]), None, 0.0) == [event(6)]


@pytest.mark.parametrize("head", [None, EventId(E, 3), EventId(E - 1, 900)])
def test_a_stream_that_was_lost_keeps_its_position_for_one_bound_and_then_is_a_gap(head: EventId | None) -> None:
    follower = follower_at(5)
    follower.look()
    took, outcomes = wait_out(follower, [], head, 100.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)
    assert outcomes == [Gap(head or EventId(0, 0), GapReason.STREAM_LOST)]
    assert follower.position == (head or EventId(0, 0))


def test_a_lost_stream_that_is_put_back_in_time_is_no_gap_and_nothing_comes_twice() -> None:
    follower = follower_at(5)
    assert follower.read([], None, 100.0) == []
    assert follower.position == EventId(E, 5)
    assert follower.read(entries([6, 7]), None, 100.0 + TAKEOVER_TIMEOUT_SECONDS / 2) == [event(6), event(7)]


def test_a_lost_stream_that_is_put_back_late_repeats_nothing() -> None:
    follower = follower_at(5)
    wait_out(follower, [], None, 100.0)
    delivered = [outcome for outcome in follower.read(entries(range(1, 8)), None, 200.0) if isinstance(outcome, Event)]
    assert delivered == [event(6), event(7)]


def test_a_new_epoch_is_a_gap_at_once_and_its_events_follow() -> None:
    follower = follower_at(5)
    assert follower.read(entries([6]) + entries([1, 2, 3], E + 7), None, 0.0) == [
        event(6),
        Gap(EventId(E + 7, 1), GapReason.EPOCH),
        event(2, E + 7),
        event(3, E + 7),
    ]
    assert follower.position == EventId(E + 7, 3)
    assert not follower.due(0.0)


def test_a_prompt_of_a_new_epoch_has_it_read() -> None:
    follower = follower_at(5)
    assert follower.prompt([event(1, E + 7)]) == []
    assert follower.due(0.0)


def test_an_epoch_of_which_the_beginning_is_gone_is_a_gap_after_one_bound() -> None:
    follower = follower_at(5)
    took, outcomes = wait_out(follower, entries([4, 5], E + 7), None, 100.0)
    assert took == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=2 * POLL_SECONDS)
    assert outcomes == [
        Gap(EventId(E + 7, 3), GapReason.EVENTS_MISSING),
        event(4, E + 7),
        event(5, E + 7),
    ]


def test_the_first_epoch_of_an_empty_stream_begins_with_a_gap() -> None:
    follower = SequenceTracker()
    follower.start(None)
    assert follower.read(entries([1, 2]), None, 0.0) == [Gap(EventId(E, 1), GapReason.EPOCH), event(2)]


@given(st.data(), st.integers(1, 40))
def test_whatever_is_published_or_not_everything_comes_once_and_in_order(data: st.DataObject, count: int) -> None:
    follower = follower_at(1)
    stream: list[StreamEvent] = entries([1])
    delivered: list[Outcome] = []
    for sequence in range(2, count + 2):
        stream += entries([sequence])
        if data.draw(st.booleans(), "published"):
            delivered += follower.prompt([event(sequence)])
        if data.draw(st.booleans(), "published again"):
            first = data.draw(st.integers(1, sequence))
            delivered += follower.prompt([event(number) for number in range(first, sequence + 1)])
        if follower.due(0.0) and data.draw(st.booleans(), "read"):
            delivered += read(follower, stream)
    follower.look()
    delivered += read(follower, stream)
    assert delivered == [event(sequence) for sequence in range(2, count + 2)]


def read(follower: SequenceTracker, stream: list[StreamEvent]) -> list[Outcome]:
    """Reads at most three entries at a time, as from Redis."""
    outcomes: list[Outcome] = []
    while follower.due(0.0):
        assert follower.position
        after = [entry for entry in stream if entry.id > follower.position][:3]
        outcomes += follower.read(after, None if after else stream[-1].id, 0.0)
        if len(after) == 3:
            follower.look()
    return outcomes
