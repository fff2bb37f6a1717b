"""The order of updates that wait for queries, and which of them are merged."""

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from app.broadcast.messages import Update
from app.broadcast.queried_update import QueriedUpdate
from app.broadcast.router import Router
from app.broadcast.update_queue import UpdateQueue
from app.core.claims import NO_CLAIMS
from app.core.query_files import parse_query
from notifymux.event import Event

ROUTER = Router(
    "match_id", queries={"row": parse_query("row", "SELECT %(new_id)s"), "all": parse_query("all", "SELECT 1")}
)


def update(serial: int, channel: str, row: int = 0) -> Update:
    event = Event(channel, msgspec.Raw(msgspec.json.encode({"match_id": 1, "new_id": row})), f"7-{serial}")
    made = ROUTER.route(event)
    assert made is not None
    made.serial = serial
    return made


def serials(updates: Sequence[Update]) -> list[int]:
    return [each.serial for each in updates]


def end_query(queue: UpdateQueue) -> None:
    assert queue.running is not None
    queue.running.show(NO_CLAIMS, b"1")
    queue.finish(queue.running)


def finish(queue: UpdateQueue) -> list[int]:
    """End the query that runs; return what was done before the next one begins."""
    end_query(queue)
    return serials(queue.take_done())


def test_an_update_without_a_query_waits_for_those_before_it() -> None:
    queue = UpdateQueue()
    queue.put([update(1, "plain"), update(2, "row", 1), update(3, "plain")], 0)
    assert serials(queue.take_done()) == [1]
    running = queue.begin()
    assert running is not None
    assert running.serial == 2
    assert queue.begin() is None
    assert not queue.take_done()
    assert finish(queue) == [2, 3]
    assert not len(queue)
    assert queue.begin() is None


def test_a_newer_update_of_a_row_covers_the_one_whose_query_has_not_begun() -> None:
    queue = UpdateQueue()
    queue.put([update(1, "row", 1)], 0)
    assert queue.begin() is not None
    queue.put([update(2, "row", 1), update(3, "plain"), update(4, "row", 1), update(5, "row", 2)], 0)
    assert finish(queue) == [1, 3], "the query of 1 may not have seen 2, which 4 covers"
    running = queue.begin()
    assert running is not None
    assert running.serial == 4
    assert finish(queue) == [4]


def test_a_row_that_is_never_still_is_shown_while_others_wait() -> None:
    queue = UpdateQueue()
    queue.put([update(1, "row", 1)], 0)
    queue.begin()
    queue.put([update(2, "row", 2)], 0)
    for number in range(3, 30):
        queue.put([update(number, "row", 2)], number / 100)
    queue.put([update(30, "row", 2)], 0.30)
    assert len(queue) == 3, "the query that runs, the row as of 0.24 s, and its newer state"


@given(st.lists(st.tuples(st.sampled_from(["plain", "row", "all"]), st.integers(1, 3), st.booleans()), max_size=40))
def test_ids_rise_and_every_row_ends_with_its_newest_update(steps: list[tuple[str, int, bool]]) -> None:
    queue, sent, newest = UpdateQueue(), list[Update](), dict[tuple[str, int], int]()
    for serial, (channel, row, ends) in enumerate(steps, 1):
        queue.put([update(serial, channel, row)], serial / 1000)
        newest[channel, row if channel == "row" else 0 if channel == "all" else -serial] = serial
        sent += queue.take_done()
        queue.begin()
        if ends and queue.running:
            end_query(queue)
            sent += queue.take_done()
            queue.begin()
    while queue.running:
        end_query(queue)
        sent += queue.take_done()
        queue.begin()
    assert serials(sent) == sorted(set(serials(sent)))
    assert set(newest.values()) <= set(serials(sent))
    assert all(not isinstance(each, QueriedUpdate) or not each.is_covered for each in sent)
