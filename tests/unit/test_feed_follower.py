"""Whether a worker follows the feed of its pod's listener (rule 15 of docs/numbering.md)."""

import msgspec
import pytest

from app.sources.feed_follower import FeedFollower, ForeignFeedError
from notifymux.event import Event, EventId, decode, encode
from notifymux.progress_timeout import POLL_SECONDS, TAKEOVER_TIMEOUT_SECONDS
from notifymux.sequence_tracker import Gap, GapReason, Outcome, SequenceTracker, StreamEvent

E = 1000
PAUSED = b'{"feed":{"position":null,"oldest":null}}'
FED = b'{"feed":{"position":"1000-9","oldest":"1000-1"}}'


def text(sequence: int, payload: bytes = b"", epoch: int = E) -> bytes:
    return encode("c", payload or b"%d" % sequence, 1.0, EventId(epoch, sequence))


def ids(outcomes: list[Outcome]) -> list[str | Gap | None]:
    return [outcome if isinstance(outcome, Gap) else outcome.id for outcome in outcomes]


class Worker:
    """A worker whose position is that of an event that it delivered."""

    def __init__(self, at: int = 5) -> None:
        self.tracker = SequenceTracker()
        self.follower = FeedFollower(self.tracker)
        self.tracker.start(EventId(E, at - 1))
        self.read(at)
        assert self.follower.connected() == EventId(E, at)

    def read(self, *sequences: int) -> list[Outcome]:
        entries = [StreamEvent(EventId(E, sequence), decode(text(sequence))) for sequence in sequences]
        outcomes = self.tracker.read(entries, None, 0.0)
        self.follower.delivered([outcome for outcome in outcomes if isinstance(outcome, Event)])
        return outcomes

    def look(self, head: EventId, *, has_read_all: bool = True) -> None:
        self.follower.looked(head, has_read_all=has_read_all)

    def feed(self, *lines: bytes, now: float = 0.0) -> list[Outcome]:
        outcomes = self.follower.received(lines, now)
        self.follower.delivered([outcome for outcome in outcomes if isinstance(outcome, Event)])
        return outcomes


def test_the_feed_is_followed_once_it_is_at_the_workers_place() -> None:
    worker = Worker(5)
    assert worker.feed(FED) == []
    assert not worker.follower.is_followed
    assert worker.feed(text(5)) == []
    assert worker.follower.is_followed
    assert ids(worker.feed(text(6), text(7))) == ["1000-6", "1000-7"]
    assert worker.follower.is_followed


def test_a_feed_that_pauses_or_is_lost_is_left_and_followed_again() -> None:
    worker = Worker(5)
    worker.feed(FED, text(5))
    worker.feed(PAUSED)
    assert (worker.follower.is_followed, worker.follower.is_paused) == (False, True)
    assert ids(worker.feed(FED, text(6))) == ["1000-6"]
    assert (worker.follower.is_followed, worker.follower.is_paused) == (True, False)
    worker.follower.lost()
    assert not worker.follower.is_followed


def test_a_feed_that_does_not_bring_what_the_stream_had_at_the_last_look_is_behind() -> None:
    worker = Worker(5)
    worker.feed(FED, text(5))
    worker.look(EventId(E, 8))
    assert worker.follower.is_followed, "it may be on its way"
    worker.feed(text(6), text(7), text(8))
    worker.look(EventId(E, 9))
    assert worker.follower.is_followed
    worker.look(EventId(E, 9))
    assert not worker.follower.is_followed
    worker.read(9)
    worker.feed(text(9))
    assert worker.follower.is_followed


def test_a_stream_that_does_not_get_what_is_fed_is_said_after_two_seconds() -> None:
    worker = Worker(5)
    worker.feed(FED, text(5))
    for sequence in range(6, 20):
        worker.feed(text(sequence))
        worker.look(EventId(E, sequence - 1))
    assert not worker.follower.is_stream_behind, "it is appended a moment later"
    for _ in range(8):
        assert not worker.follower.is_stream_behind
        worker.look(EventId(E, 15))
    assert worker.follower.is_stream_behind
    worker.look(EventId(E, 19))
    assert not worker.follower.is_stream_behind


def test_an_epoch_that_the_feed_does_not_bring_is_seen_in_the_stream() -> None:
    worker = Worker(5)
    worker.feed(FED, text(5))
    worker.look(EventId(E + 1, 1))
    worker.look(EventId(E + 1, 1))
    assert not worker.follower.is_followed


def test_a_stream_that_lacks_what_was_fed_is_no_loss_and_what_is_appended_later_is_not_delivered_again() -> None:
    worker = Worker(5)
    worker.feed(FED, text(5), text(6))
    worker.follower.lost()
    now = 0.0
    while now < 10 * TAKEOVER_TIMEOUT_SECONDS:
        assert worker.tracker.read([], EventId(E, 5), now) == []
        now += POLL_SECONDS
    assert worker.tracker.on_published([decode(text(6)), decode(text(7))]) == [decode(text(7))]


def test_a_stream_of_an_earlier_epoch_is_a_loss_once_the_feed_is_not_followed() -> None:
    worker = Worker(5)
    worker.feed(FED, text(5), text(6))
    earlier = EventId(E - 1, 9)
    now = 0.0
    while now < 2 * TAKEOVER_TIMEOUT_SECONDS:
        assert worker.tracker.read([], earlier, now) == []
        now += POLL_SECONDS
    worker.follower.lost()
    outcomes: list[Outcome] = []
    lost_at = now
    while not outcomes:
        outcomes = worker.tracker.read([], earlier, now)
        now += POLL_SECONDS
    assert outcomes == [Gap(earlier, GapReason.STREAM_LOST)]
    assert now - lost_at == pytest.approx(TAKEOVER_TIMEOUT_SECONDS, abs=3 * POLL_SECONDS)


def test_what_the_feed_does_not_have_any_more_is_read_from_the_stream() -> None:
    worker = Worker(5)
    assert worker.feed(FED, text(8)) == []
    assert worker.tracker.needs_read
    assert ids(worker.read(6, 7, 8)) == ["1000-6", "1000-7", "1000-8"]
    assert ids(worker.feed(text(9))) == ["1000-9"]


def test_without_redis_it_is_a_gap_after_the_timeout_and_the_feed_is_followed_from_there() -> None:
    worker = Worker(5)
    worker.follower.redis_failed(100.0)
    assert worker.feed(FED, text(8), now=101.0) == []
    outcomes = worker.feed(text(9), text(10), now=100.0 + TAKEOVER_TIMEOUT_SECONDS)
    assert ids(outcomes) == [Gap(EventId(E, 8), GapReason.EVENTS_MISSING), "1000-9", "1000-10"]
    assert worker.follower.is_followed


def test_an_older_epoch_is_not_followed_without_redis_either() -> None:
    worker = Worker(5)
    worker.follower.redis_failed(0.0)
    assert worker.feed(FED, text(9, epoch=E - 1), now=100.0) == []
    assert not worker.follower.is_followed


def test_a_feed_that_brings_another_event_under_a_known_id_is_left() -> None:
    worker = Worker(5)
    with pytest.raises(ForeignFeedError, match="1000-5 names another event"):
        worker.feed(FED, text(5, b'"another"'))
    assert not worker.follower.is_followed


def test_a_worker_without_a_place_wants_no_feed_until_redis_has_been_away() -> None:
    tracker = SequenceTracker()
    follower = FeedFollower(tracker)
    assert not follower.is_wanted(0.0)
    follower.redis_failed(0.0)
    assert not follower.is_wanted(1.0)
    assert follower.is_wanted(TAKEOVER_TIMEOUT_SECONDS)
    assert follower.connected() is None
    assert ids(follower.received([FED, text(3), text(4)], TAKEOVER_TIMEOUT_SECONDS)) == ["1000-3", "1000-4"]
    assert tracker.position == EventId(E, 4)


def test_lines_that_are_no_events_are_skipped() -> None:
    worker = Worker(5)
    assert ids(worker.feed(b"", b"{", b'{"feed":7}', text(6))) == ["1000-6"]
    assert msgspec.json.decode(PAUSED)["feed"]["position"] is None


def test_a_worker_that_has_not_read_all_that_it_was_fed_does_not_leave_the_feed_for_it() -> None:
    worker = Worker(5)
    worker.feed(FED, text(5))
    for _ in range(3):
        worker.look(EventId(E, 9), has_read_all=False)
    assert worker.follower.is_followed
    worker.look(EventId(E, 9))
    assert not worker.follower.is_followed
