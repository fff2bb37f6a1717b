"""The queue of one client."""

from hypothesis import given
from hypothesis import strategies as st

from app.broadcast.messages import Message
from app.broadcast.send_queue import SendQueue


def message(text: str, row: str | None = None) -> Message:
    return Message(text.encode(), row=row.encode() if row else None)


def drained(queue: SendQueue) -> list[str]:
    return [message.text.decode() for message in queue.drain()]


def test_all_messages_are_drained_together_and_in_order() -> None:
    queue = SendQueue(100)
    for text in ("a", "b", "c"):
        assert queue.push(message(text))
    assert drained(queue) == ["a", "b", "c"]
    assert not queue
    assert drained(queue) == []


def test_a_message_that_would_exceed_the_limit_is_refused_and_the_queued_ones_stay() -> None:
    queue = SendQueue(10)
    assert queue.push(message("12345"))
    assert queue.push(message("67890"))
    assert not queue.push(message("x"))
    assert drained(queue) == ["12345", "67890"]


def test_a_drained_queue_has_room_again() -> None:
    queue = SendQueue(10)
    for _ in range(5):
        assert queue.push(message("1234567890"))
        assert not queue.push(message("1"))
        assert drained(queue) == ["1234567890"]


def test_a_message_larger_than_the_limit_is_accepted_by_an_empty_queue() -> None:
    queue = SendQueue(10)
    assert queue.push(message("x" * 1000))
    assert not queue.push(message("x"))
    assert drained(queue) == ["x" * 1000]
    assert queue.push(message("x"))
    assert not queue.push(message("x" * 1000))


def test_messages_pushed_unbounded_do_not_count() -> None:
    queue = SendQueue(10)
    queue.push_unbounded([message("x" * 1000), message("y" * 1000)])
    assert queue.push(message("1234567890"))
    assert not queue.push(message("1"))
    assert drained(queue) == ["x" * 1000, "y" * 1000, "1234567890"]


def test_a_newer_event_of_a_row_replaces_the_queued_one_once_the_queue_is_half_full() -> None:
    queue = SendQueue(10)
    queue.push(message("c1", "clock"))
    queue.push(message("c2", "clock"))  # not half full: both
    queue.push(message("s1"))
    queue.push(message("c3", "clock"))  # replaces c2, but goes to the end, so that ids never fall
    assert drained(queue) == ["c1", "s1", "c3"]


def test_events_of_one_row_never_fill_the_queue() -> None:
    queue = SendQueue(100)
    assert all(queue.push(message(f"{number:04}", "clock")) for number in range(10_000))
    texts = drained(queue)
    assert texts[-1] == "9999"
    assert len(texts) < 20


def test_an_event_pushed_unbounded_is_not_replaced() -> None:
    queue = SendQueue(4)
    queue.push_unbounded([message("m1", "clock")])
    queue.push(message("xx"))
    queue.push(message("c2", "clock"))
    assert drained(queue) == ["m1", "xx", "c2"]


Step = tuple[str, int, bool]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 8), st.booleans())), st.integers(1, 40))
def test_order_is_kept_each_rows_newest_event_is_queued_and_the_limit_holds(steps: list[Step], limit: int) -> None:
    queue = SendQueue(limit)
    pushed: list[tuple[int, str | None]] = []
    got: list[int] = []
    for number, (row, size, drain) in enumerate(steps):
        if queue.push(message(f"{number} ".ljust(size), row)):
            pushed.append((number, row))
        if drain and pushed and pushed[-1][0] not in got:
            got += [int(text) for text in drained(queue)]
    if pushed and pushed[-1][0] not in got:
        texts = drained(queue)
        assert len(texts) == 1 or sum(map(len, texts)) <= limit
        got += map(int, texts)
    assert got == sorted(set(got))
    assert {number for number, row in pushed if row is None} <= set(got)
    last = {row: number for number, row in pushed}
    assert set(last.values()) <= set(got)
