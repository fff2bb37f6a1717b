"""The connections over which no client is served, and a limit for them."""

from collections.abc import Callable, Hashable

from app.monitoring.refusals import Cause, refusals

Drop = Callable[[], None]


class ConnectionLimit:
    """Holds the number of connections down that are no client's: half-open, idle, or with a request that is short.

    No one is refused. Past the limit, a connection of the address with the most of them is dropped, the one that has
    done nothing for the longest. So an address that opens many closes its own, and a request that comes at once, as a
    probe's does, is served. Behind a proxy, where all have one address, the idle ones go.

    Args:
        limit: the most of them at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        # By address, for each connection the function that drops it; the one that did something last is the last.
        self._addresses: dict[str, dict[Hashable, Drop]] = {}

    def __len__(self) -> int:
        return self._size

    def add(self, address: str, connection: Hashable, drop: Drop) -> None:
        """Add a connection, or note that it did something. Past the limit, drop another one."""
        self.discard(address, connection)
        self._addresses.setdefault(address, {})[connection] = drop
        self._size += 1
        if self._size > self._limit:
            self._drop_one()

    def discard(self, address: str, connection: Hashable) -> None:
        """Remove a connection, if it is here: it is lost, or serves a client."""
        connections = self._addresses.get(address, {})
        if connections.pop(connection, None):
            self._size -= 1
            if not connections:
                del self._addresses[address]

    def _drop_one(self) -> None:
        address = max(self._addresses, key=lambda address: len(self._addresses[address]))
        connection, drop = next(iter(self._addresses[address].items()))
        self.discard(address, connection)
        refusals.add(
            Cause.IDLE, "more connections than there is room for serve no client: idle ones are dropped", address
        )
        drop()
