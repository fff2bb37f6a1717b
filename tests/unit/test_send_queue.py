"""What waits for one client."""

from hypothesis import given
from hypothesis import strategies as st

from app.broadcast.messages import Message
from app.broadcast.send_queue import SendQueue


def message(text: str, row: str | None = None) -> Message:
    return Message(text.encode(), row=row.encode() if row else None)


def taken(outbox: SendQueue) -> list[str]:
    """What is taken out."""
    return [message.text.decode() for message in outbox.take()]


def test_everything_that_waits_is_taken_at_once_and_in_order() -> None:
    outbox = SendQueue(100)
    for text in ("a", "b", "c"):
        assert outbox.put(message(text))
    assert taken(outbox) == ["a", "b", "c"]
    assert not outbox
    assert taken(outbox) == []


def test_what_would_be_too_much_is_refused_and_what_waits_stays() -> None:
    outbox = SendQueue(10)
    assert outbox.put(message("12345"))
    assert outbox.put(message("67890"))
    assert not outbox.put(message("x"))
    assert taken(outbox) == ["12345", "67890"]


def test_what_was_taken_makes_room() -> None:
    outbox = SendQueue(10)
    for _ in range(5):
        assert outbox.put(message("1234567890"))
        assert not outbox.put(message("1"))
        assert taken(outbox) == ["1234567890"]


def test_one_message_larger_than_the_limit_passes_when_nothing_else_waits() -> None:
    outbox = SendQueue(10)
    assert outbox.put(message("x" * 1000))
    assert not outbox.put(message("x"))
    assert taken(outbox) == ["x" * 1000]
    assert outbox.put(message("x"))
    assert not outbox.put(message("x" * 1000))


def test_a_snapshot_and_what_was_missed_count_for_nothing() -> None:
    outbox = SendQueue(10)
    outbox.load([message("x" * 1000), message("y" * 1000)])
    assert outbox.put(message("1234567890"))
    assert not outbox.put(message("1"))
    assert taken(outbox) == ["x" * 1000, "y" * 1000, "1234567890"]


def test_a_newer_event_of_a_row_takes_the_place_of_the_waiting_one_once_the_queue_is_half_full() -> None:
    outbox = SendQueue(10)
    outbox.put(message("c1", "clock"))
    outbox.put(message("c2", "clock"))  # not half full: both
    outbox.put(message("s1"))
    outbox.put(message("c3", "clock"))  # in the place of c2, but at the end: ids never fall
    assert taken(outbox) == ["c1", "s1", "c3"]


def test_a_clock_that_ticks_for_ever_never_fills_the_queue() -> None:
    outbox = SendQueue(100)
    assert all(outbox.put(message(f"{number:04}", "clock")) for number in range(10_000))
    texts = taken(outbox)
    assert texts[-1] == "9999"
    assert len(texts) < 20


def test_an_event_that_was_missed_is_not_replaced() -> None:
    outbox = SendQueue(4)
    outbox.load([message("m1", "clock")])
    outbox.put(message("xx"))
    outbox.put(message("c2", "clock"))
    assert taken(outbox) == ["m1", "xx", "c2"]


Step = tuple[str, int, bool]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 8), st.booleans())), st.integers(1, 40))
def test_order_is_kept_the_newest_of_each_row_is_there_and_the_bound_holds(steps: list[Step], limit: int) -> None:
    outbox = SendQueue(limit)
    put: list[tuple[int, str | None]] = []
    got: list[int] = []
    for number, (row, size, take) in enumerate(steps):
        if outbox.put(message(f"{number} ".ljust(size), row)):
            put.append((number, row))
        if take and put and put[-1][0] not in got:
            got += [int(text) for text in taken(outbox)]
    if put and put[-1][0] not in got:
        texts = taken(outbox)
        assert len(texts) == 1 or sum(map(len, texts)) <= limit
        got += map(int, texts)
    assert got == sorted(set(got))
    assert {number for number, row in put if row is None} <= set(got)
    last = {row: number for number, row in put}
    assert set(last.values()) <= set(got)
