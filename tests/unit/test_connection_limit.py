"""Which connection is dropped when too many serve no client."""

import pytest

from app.monitoring.refusals import Cause, refusals
from app.web.connection_limit import ConnectionLimit


class Connections:
    """A limit of four, and the connections that it dropped."""

    def __init__(self) -> None:
        self.limit = ConnectionLimit(4)
        self.dropped: list[str] = []

    def act(self, *names: str) -> None:
        """Have connections do something; a name's first letter is the address."""
        for name in names:
            self.limit.add(name[0], name, lambda name=name: self.dropped.append(name))  # type: ignore[misc]


def test_past_the_limit_the_address_with_the_most_loses_the_connection_that_did_nothing_for_the_longest() -> None:
    connections, before = Connections(), refusals.counts[Cause.IDLE]
    connections.act("a1", "b1", "b2", "b3", "b1", "a2")
    assert connections.dropped == ["b2"]
    connections.act("a3", "b3")
    assert connections.dropped == ["b2", "a1"]
    assert len(connections.limit) == 4
    assert refusals.counts[Cause.IDLE] - before == 2


def test_who_left_or_became_a_client_is_neither_counted_nor_dropped() -> None:
    connections = Connections()
    connections.act("a1", "a2", "a3", "b1")
    connections.limit.discard("a", "a1")
    connections.limit.discard("a", "a1")
    connections.limit.discard("c", "c1")
    connections.act("b2")
    assert connections.dropped == []
    connections.act("b3")
    assert connections.dropped == ["b1"]


@pytest.mark.parametrize("count", [1, 1000])
def test_nothing_is_kept_of_connections_that_are_gone(count: int) -> None:
    connections = Connections()
    for number in range(count):
        connections.act(f"{number}")
        connections.limit.discard(f"{number}"[0], f"{number}")
    assert len(connections.limit) == 0
    assert not connections.limit._addresses
