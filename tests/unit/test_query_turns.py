"""Whose match gets its snapshot query next."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.broadcast.query_turns import QueryTurns


def begin_all(queue: QueryTurns[str]) -> list[str]:
    """Begin and end one query after another."""
    begun = []
    while (match := queue.begin()) is not None:
        begun.append(match)
        queue.end(match)
    return begun


def test_an_address_that_asks_for_many_matches_delays_another_by_one_query() -> None:
    queue: QueryTurns[str] = QueryTurns(1)
    for number in range(100):
        queue.add(f"flood-{number}", ["stranger"])
    assert queue.begin() == "flood-0"
    queue.add("final", ["home"])
    queue.end("flood-0")
    assert begin_all(queue)[:3] in (["flood-1", "final", "flood-2"], ["final", "flood-1", "flood-2"])


def test_queries_that_run_count_against_their_address_also_if_its_clients_have_left() -> None:
    queue: QueryTurns[str] = QueryTurns(3)
    for match in ("a", "b", "c", "d"):
        queue.add(match, ["stranger"])
    assert [queue.begin(), queue.begin()] == ["a", "b"]
    queue.remove("a", ["stranger"])
    queue.remove("b", ["stranger"])
    queue.add("final", ["home"])
    queue.add("semi", ["hall"])
    assert queue.begin() == "final"
    queue.end("a")
    assert queue.begin() == "semi"


def test_a_match_that_nobody_waits_for_any_more_gets_no_query() -> None:
    queue: QueryTurns[str] = QueryTurns(1)
    queue.add("1", ["a", "b"])
    queue.add("1", ["a"])
    queue.add("2", ["a"])
    queue.remove("1", ["a"])
    queue.remove("1", ["a", "b"])
    assert begin_all(queue) == ["2"]
    assert "1" not in queue


def test_a_match_of_several_addresses_is_taken_when_the_first_of_their_turns_comes_and_once() -> None:
    queue: QueryTurns[str] = QueryTurns(1)
    for match in ("a1", "a2", "final"):
        queue.add(match, ["a"])
    queue.add("final", ["b"])
    queue.add("c1", ["c"])
    assert begin_all(queue) == ["a1", "final", "c1", "a2"]


def test_a_match_whose_query_runs_is_not_queued_again() -> None:
    queue: QueryTurns[str] = QueryTurns(2)
    queue.add("1", ["a"])
    assert queue.begin() == "1"
    queue.add("1", ["b"])
    assert queue.begin() is None
    queue.end("1")
    assert begin_all(queue) == []


def test_of_an_addresss_matches_the_one_that_most_clients_wait_for_comes_first_then_the_order_of_asking() -> None:
    queue: QueryTurns[str] = QueryTurns(1)
    for match in ("3", "1", "2"):
        queue.add(match, ["a"])
    queue.add("4", ["a", "a", "a"])
    queue.add("1", ["a"])
    assert begin_all(queue) == ["4", "1", "3", "2"]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("1234567")), max_size=60), st.integers(1, 4))
def test_each_match_that_waits_is_queried_once(waits: list[tuple[str, str]], slots: int) -> None:
    queue: QueryTurns[str] = QueryTurns(slots)
    for address, match in waits:
        queue.add(match, [address])
    begun = begin_all(queue)
    assert sorted(begun) == sorted({match for _, match in waits})
    assert len(queue) == 0
    assert not queue._lines


class Strangers(RuleBasedStateMachine):
    """Addresses that ask and leave in any order; nothing is kept for those that have left."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: QueryTurns[str] = QueryTurns(2)
        self.waits: list[tuple[str, str]] = []
        self.running: list[str] = []

    @rule(address=st.sampled_from("abc"), match=st.sampled_from("1234"))
    def ask(self, address: str, match: str) -> None:
        self.queue.add(match, [address])
        if match not in self.running:
            self.waits.append((address, match))

    @precondition(lambda self: self.waits)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        address, match = self.waits.pop(data.draw(st.integers(0, len(self.waits) - 1)))
        self.queue.remove(match, [address])

    @rule()
    def begin(self) -> None:
        match = self.queue.begin()
        waiting = {match for _, match in self.waits}
        assert (match is None) == (len(self.running) == 2 or not waiting)
        if match is not None:
            assert match in waiting
            self.running.append(match)
            self.waits = [wait for wait in self.waits if wait[1] != match]

    @precondition(lambda self: self.running)
    @rule()
    def end(self) -> None:
        self.queue.end(self.running.pop(0))

    @invariant()
    def keeps_exactly_who_waits(self) -> None:
        lines = Counter({(a, m): count for a, line in self.queue._lines.items() for m, count in line.items()})
        assert lines == Counter(self.waits)
        assert len(self.queue) == len({match for _, match in self.waits})


test_the_queue_keeps_exactly_who_waits = Strangers.TestCase
