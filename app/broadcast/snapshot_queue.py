"""The order in which matches get their snapshot query: in turns among the addresses whose clients wait."""

from collections import Counter
from collections.abc import Collection
from itertools import islice


class SnapshotQueue:
    """The matches that clients wait for, and the queries that run.

    The next query is one for the address with the fewest running ones, and among these for the one whose turn is the
    longest ago. So an address that asks for many matches delays its own clients, and any other address by one query at
    most. Of an address's matches, the one that most of its clients wait for is taken, and among equal ones the first
    that it asked for. A match that several addresses wait for is taken when the first of their turns comes, and that
    address alone is charged for it. Nothing here is longer than the number of clients that wait.

    Args:
        slots: the most queries that run at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        # By address, in the order of the turns: the matches that it waits for, each with the number of clients.
        self._lines: dict[str, Counter[str]] = {}
        self._addresses: dict[str, set[str]] = {}  # by match that waits
        self._running: dict[str, str] = {}  # by match: the address that is charged for its query

    def __len__(self) -> int:
        return len(self._addresses)

    def __contains__(self, match: str) -> bool:
        """Whether a match waits, or its query runs."""
        return match in self._addresses or match in self._running

    def is_running(self, match: str) -> bool:
        """Whether the query of a match runs."""
        return match in self._running

    def add(self, match: str, addresses: Collection[str]) -> None:
        """Have a match wait for some clients, by their addresses, unless its query runs already."""
        if match in self._running:
            return
        for address in addresses:
            self._lines.setdefault(address, Counter())[match] += 1
        self._addresses.setdefault(match, set()).update(addresses)

    def remove(self, match: str, addresses: Collection[str]) -> None:
        """Take back one `add`. A match that nobody waits for any more gets no query."""
        for address in addresses:
            line = self._lines.get(address)
            if line is None or match not in line:
                continue  # its query runs
            line[match] -= 1
            if not line[match]:
                self._drop(match, address)

    def give_up(self, match: str) -> None:
        """Take back every `add` of a match whose query does not run."""
        for address in list(self._addresses[match]):
            self._drop(match, address)

    def begin(self) -> str | None:
        """Return the next match to query, if one waits and a slot is free."""
        if len(self._running) >= self._slots or not self._lines:
            return None
        charged = Counter(self._running.values())
        # There are fewer charged addresses than slots, so an address that is not charged is among the first `slots`.
        address = min(islice(self._lines, self._slots), key=charged.__getitem__)
        line = self._lines[address]
        match = max(line, key=line.__getitem__)  # the first of equal ones
        self._lines[address] = self._lines.pop(address)
        self.give_up(match)
        self._running[match] = address
        return match

    def end(self, match: str) -> None:
        """Free the slot of a query that has ended."""
        del self._running[match]

    def _drop(self, match: str, address: str) -> None:
        line = self._lines[address]
        del line[match]
        if not line:
            del self._lines[address]
        self._addresses[match].discard(address)
        if not self._addresses[match]:
            del self._addresses[match]
