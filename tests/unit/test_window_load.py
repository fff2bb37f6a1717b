"""What is read of a stream for the replay window, page by page, against what the stream has."""

from hypothesis import given
from hypothesis import strategies as st

from listener.sequencer.process_state import BufferSize
from listener.sequencer.redis_requests import ReadRecent, StreamEntry
from listener.sequencer.window_load import WindowLoad
from notifymux.event import EventId
from notifymux.page_size import PageSize

LARGE = 1_000_000
TEXTS = {size: b"x" * size for size in (100, 2000, LARGE)}  # shared, so that the tests take little memory
SIZES = st.lists(st.sampled_from([100, *TEXTS]), max_size=30)


def texts(sizes: list[int], repeated: int) -> list[bytes]:
    return [TEXTS[size] for size in sizes for _ in range(repeated)]


def load(entries: list[StreamEntry], limits: BufferSize) -> tuple[WindowLoad, int]:
    """A complete reading of the second epoch, and the bytes of its largest page."""
    reading, largest = WindowLoad(2, limits), 0
    while not reading.is_complete:
        request: ReadRecent = reading.request
        visible = [entry for entry in entries if request.until is None or entry.id <= request.until]
        page = visible[: -request.limit - 1 : -1]
        largest = max(largest, sum(len(entry.text) for entry in page))
        reading.read(request.limit, page)
    return reading, largest


@given(SIZES, SIZES, st.integers(1, 5), st.integers(1, 200), st.sampled_from([1, 10_000, 5 * LARGE]), st.booleans())
def test_a_window_has_the_last_events_of_its_epoch_that_fit(
    earlier: list[int], sizes: list[int], repeated: int, most: int, limit: int, has_gap: bool
) -> None:
    own = texts(sizes, repeated)
    entries = [StreamEntry(EventId(1, number), text) for number, text in enumerate(texts(earlier, 1), 1)]
    entries += [StreamEntry(EventId(2, number), text) for number, text in enumerate(own, 1)]
    if has_gap and len(own) > 2:
        del entries[-len(own) // 2]
        own = own[-len(own) // 2 + 1 :]
    limits = BufferSize(most, limit)
    reading, _ = load(entries, limits)
    assert reading.head == (entries[-1].id if entries else None)
    assert reading.has_events == bool(own)
    if own:
        window = reading.window(len(texts(sizes, repeated)) + 1)
        held = window.batch(window.first, len(window), 1 << 40)
        assert held == own[-len(held) :]
        assert window.next == entries[-1].id.sequence + 1
        assert len(held) <= most
        assert window.bytes <= limit + LARGE
        assert len(held) in (len(own), most) or window.bytes >= limit


def test_a_window_ends_before_what_has_not_been_received() -> None:
    reading, _ = load([StreamEntry(EventId(2, number), b"x") for number in range(1, 10)], BufferSize(100, 100))
    assert (reading.window(6).first, reading.window(6).next) == (1, 6)


def test_a_page_of_large_entries_is_bounded_in_bytes_after_the_first() -> None:
    size = PageSize()
    first = size.entries
    size.learn([LARGE] * first)
    assert size.entries * LARGE <= 5_000_000
    size.learn([20 * LARGE])
    assert size.entries == 1
    size.learn([100])
    assert size.entries > first
    size.learn([])
    assert size.entries > first


def test_reading_a_stream_of_large_events_takes_little_more_than_the_window_holds() -> None:
    entries = [StreamEntry(EventId(2, number), TEXTS[LARGE]) for number in range(1, 257)]
    reading, largest = load(entries, BufferSize(20_000, 64 * LARGE))
    assert len(reading.window(257)) == 64
    assert largest <= 50 * LARGE
