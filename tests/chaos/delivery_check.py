"""Compares the messages that clients received with the order in which the events were committed. Pure: no I/O."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class EventKey(NamedTuple):
    """Identifies an event independently of its id."""

    writer: int
    serial: int


class Received(NamedTuple):
    """A message that a client received: an event with its id, or a `resync`, which has no event."""

    event: EventKey | None
    id: str


@dataclass
class Deliveries:
    """The result of the check, of one client or summed over several."""

    received: int = 0
    lost: int = 0
    announced: int = 0  # missing, but announced by a `resync` in their place
    repeated: int = 0
    out_of_order: int = 0
    resyncs: int = 0  # the most of one client
    errors: list[str] = field(default_factory=list)

    def add(self, other: "Deliveries") -> None:
        self.received += other.received
        self.lost += other.lost
        self.announced += other.announced
        self.repeated += other.repeated
        self.out_of_order += other.out_of_order
        self.resyncs = max(self.resyncs, other.resyncs)
        self.errors += other.errors


class Position(NamedTuple):
    """The position of an event in the commit order.

    Events that the reference session did not receive before PostgreSQL died come last in their session, in any order.
    """

    session: int
    offset: float


_LAST = float("inf")


class DeliveryCheck:
    """Checks what clients received of one match's events.

    Args:
        sessions: the events that each session of the reference listener received, in commit order.
        unreceived: committed events that no session received, with the number of the session they belong to.
        uncertain: events whose COMMIT got no answer, with the number of the session they belong to.
    """

    def __init__(
        self,
        sessions: Sequence[Sequence[EventKey]],
        unreceived: Mapping[EventKey, int] | None = None,
        uncertain: Mapping[EventKey, int] | None = None,
    ) -> None:
        expected = {event: Position(session, _LAST) for event, session in (unreceived or {}).items()}
        for session, events in enumerate(sessions):
            expected |= {event: Position(session, offset) for offset, event in enumerate(events)}
        self._positions = {event: Position(session, _LAST) for event, session in (uncertain or {}).items()} | expected
        self._expected = sorted((position, event) for event, position in expected.items())

    def run(self, client: str, received: Iterable[Received]) -> Deliveries:
        """Check the messages of a client that was connected from before the first event until after the last."""
        return _ClientCheck(client, self._positions, self._expected).run(received)


class _ClientCheck:
    def __init__(
        self, client: str, positions: Mapping[EventKey, Position], expected: Sequence[tuple[Position, EventKey]]
    ) -> None:
        self._client, self._positions, self._expected = client, positions, expected
        self._deliveries = Deliveries()
        self._seen: set[EventKey] = set()
        self._last, self._last_id = Position(-1, -1), (0, 0)
        self._next = 0  # index in `expected`
        self._resynced = False  # since the last event

    def run(self, received: Iterable[Received]) -> Deliveries:
        for event, event_id in received:
            if event is None:
                self._deliveries.resyncs += 1
                self._resynced = True
            else:
                self._deliveries.received += 1
                self._check(event, event_id)
        self._count_missing(Position(self._expected[-1][0].session + 1, 0) if self._expected else Position(0, 0))
        return self._deliveries

    def _check(self, event: EventKey, event_id: str) -> None:
        position = self._positions.get(event)
        if position is None:
            self._error(f"received {event} with id {event_id}, which was never committed")
        elif event in self._seen:
            self._deliveries.repeated += 1
            self._error(f"received {event} again, with id {event_id}")
        elif position < self._last:
            self._deliveries.out_of_order += 1
            self._error(f"received {event} with id {event_id} after {self._last}")
        else:
            self._count_missing(position)
            self._check_id(event_id)
            self._seen.add(event)
            self._last, self._resynced = position, False

    def _check_id(self, event_id: str) -> None:
        epoch, _, sequence = event_id.partition("-")
        number = (int(epoch), int(sequence))
        if number <= self._last_id:
            self._error(f"received id {event_id} after {self._last_id}")
        self._last_id = number

    def _count_missing(self, before: Position) -> None:
        while self._next < len(self._expected) and self._expected[self._next][0] < before:
            event = self._expected[self._next][1]
            if event not in self._seen:
                self._deliveries.announced += self._resynced
                self._deliveries.lost += not self._resynced
                if not self._resynced and self._deliveries.lost < 5:
                    self._error(f"missed {event} before {before}")
            self._next += 1

    def _error(self, text: str) -> None:
        self._deliveries.errors.append(f"{self._client} {text}")


def ambiguous_ids(all_received: Iterable[Iterable[Received]]) -> list[str]:
    """Return the ids that several events have, and the events that have several ids, among all clients."""
    events: dict[str, EventKey] = {}
    ids: dict[EventKey, str] = {}
    errors: Counter[str] = Counter()
    for received in all_received:
        for event, event_id in received:
            if event is not None and events.setdefault(event_id, event) != event:
                errors[f"{event_id} is {event} and {events[event_id]}"] += 1
            if event is not None and ids.setdefault(event, event_id) != event_id:
                errors[f"{event} has the ids {event_id} and {ids[event]}"] += 1
    return list(errors)
