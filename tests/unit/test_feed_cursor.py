"""Which lines a worker is sent (rule 14 of docs/numbering.md)."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from listener.sequencer.event_window import EventWindow
from listener.sequencer.feed_cursor import PAUSED, FeedCursor
from notifymux.event import EventId

E = 1000


class Source:
    """An epoch with the events of some sequences."""

    def __init__(self, sequences: range | None, epoch: int = E) -> None:
        self.epoch, self._sequences = epoch, sequences
        self._window = EventWindow(sequences.start if sequences else 1)
        for sequence in sequences or ():
            self._window.append(b"%d-%d" % (epoch, sequence))

    def feed_range(self) -> range | None:
        return self._sequences

    def keep_from(self, sequence: int) -> None:
        pass

    def feed_texts(self, start: int) -> list[bytes]:
        return self._window.batch(start, 3, 1 << 20)


def drain(cursor: FeedCursor, source: Source | None) -> tuple[list[bytes], FeedCursor]:
    lines: list[bytes] = []
    while True:
        more, cursor = cursor.advance(source)
        if not more:
            return lines, cursor
        lines += more


def texts(epoch: int, sequences: Sequence[int]) -> list[bytes]:
    return [b"%d-%d" % (epoch, sequence) for sequence in sequences]


def test_a_worker_is_sent_the_text_of_its_own_position_and_what_follows() -> None:
    lines, cursor = drain(FeedCursor(EventId(E, 5)), Source(range(2, 9)))
    assert lines == [b'{"feed":{"position":"1000-8","oldest":"1000-2"}}', *texts(E, range(5, 9))]
    assert drain(cursor, Source(range(2, 11)))[0] == texts(E, [9, 10])


def test_a_worker_without_a_position_or_of_another_epoch_is_sent_all_that_is_remembered() -> None:
    for after in (None, EventId(E - 1, 500)):
        assert drain(FeedCursor(after), Source(range(2, 9)))[0][1:] == texts(E, range(2, 9))


def test_a_worker_that_is_too_far_behind_goes_on_with_the_oldest() -> None:
    _, cursor = drain(FeedCursor(EventId(E, 5)), Source(range(2, 9)))
    assert drain(cursor, Source(range(20, 22)))[0] == texts(E, [20, 21])


def test_a_pause_is_said_once_and_the_end_of_it_too() -> None:
    lines, cursor = drain(FeedCursor(EventId(E, 5)), None)
    assert lines == [PAUSED]
    assert drain(cursor, None)[0] == []
    lines, cursor = drain(cursor, Source(range(2, 7)))
    assert lines[1:] == texts(E, [5, 6])
    assert drain(cursor, None)[0] == [PAUSED]


def test_nothing_is_said_while_the_stream_is_not_known_to_have_the_begin() -> None:
    _, cursor = drain(FeedCursor(EventId(E, 5)), Source(range(2, 9)))
    assert cursor.advance(Source(None, E + 1)) == ([], cursor)
    assert drain(cursor, Source(range(1, 3), E + 1))[0][1:] == texts(E + 1, [1, 2])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.booleans()), max_size=30), st.integers(1, 5))
def test_texts_follow_each_other_unless_they_are_forgotten(steps: list[tuple[int, int, bool]], after: int) -> None:
    first, last, cursor, received = 1, 6, FeedCursor(EventId(E, after)), list[bytes]()
    for added, forgotten, is_paused in steps:
        last += added
        first = min(first + forgotten, last)
        lines, cursor = cursor.advance(None if is_paused else Source(range(first, last + 1)))
        numbers = [int(line.partition(b"-")[2]) for line in lines if not line.startswith(b"{")]
        if numbers:
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            expected = int(received[-1].partition(b"-")[2]) + 1 if received else after
            assert numbers[0] == max(expected, first)
            received += texts(E, numbers)
