"""The order in which keys, for example matches, get their query: in turns among the addresses whose clients wait."""

from collections import Counter
from collections.abc import Collection, Hashable
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class QueryTurns(Generic[K]):
    """The keys that clients wait for, and the queries that run.

    The next query is one for the address with the fewest running ones, and among these for the one whose turn is the
    longest ago. So an address that asks for many keys delays its own clients, and any other address by one query at
    most. Of an address's keys, the one that most of its clients wait for is taken, and among equal ones the first
    that it asked for. A key that several addresses wait for is taken when the first of their turns comes, and that
    address alone is charged for it. Nothing here is longer than the number of clients that wait.

    Args:
        slots: the most queries that run at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        # By address, in the order of the turns: the keys that it waits for, each with the number of clients.
        self._lines: dict[str, Counter[K]] = {}
        self._addresses: dict[K, set[str]] = {}  # by key that waits
        self._running: dict[K, str] = {}  # by key: the address that is charged for its query

    def __len__(self) -> int:
        return len(self._addresses)

    def __contains__(self, key: K) -> bool:
        """Whether a key waits, or its query runs."""
        return key in self._addresses or key in self._running

    def is_running(self, key: K) -> bool:
        """Whether the query of a key runs."""
        return key in self._running

    def add(self, key: K, addresses: Collection[str]) -> None:
        """Have a key wait for some clients, by their addresses, unless its query runs already."""
        if key in self._running:
            return
        for address in addresses:
            self._lines.setdefault(address, Counter())[key] += 1
        self._addresses.setdefault(key, set()).update(addresses)

    def remove(self, key: K, addresses: Collection[str]) -> None:
        """Take back one `add`. A key that nobody waits for any more gets no query."""
        for address in addresses:
            line = self._lines.get(address)
            if line is None or key not in line:
                continue  # its query runs
            line[key] -= 1
            if not line[key]:
                self._drop(key, address)

    def give_up(self, key: K) -> None:
        """Take back every `add` of a key whose query does not run."""
        for address in list(self._addresses[key]):
            self._drop(key, address)

    def begin(self) -> K | None:
        """Return the next key to query, if one waits and a slot is free."""
        if len(self._running) >= self._slots or not self._lines:
            return None
        charged = Counter(self._running.values())
        # There are fewer charged addresses than slots, so an address that is not charged is among the first `slots`.
        address = min(islice(self._lines, self._slots), key=charged.__getitem__)
        line = self._lines[address]
        key = max(line, key=line.__getitem__)  # the first of equal ones
        self._lines[address] = self._lines.pop(address)
        self.give_up(key)
        self._running[key] = address
        return key

    def end(self, key: K) -> None:
        """Free the slot of a query that has ended."""
        del self._running[key]

    def _drop(self, key: K, address: str) -> None:
        line = self._lines[address]
        del line[key]
        if not line:
            del self._lines[address]
        self._addresses[key].discard(address)
        if not self._addresses[key]:
            del self._addresses[key]
