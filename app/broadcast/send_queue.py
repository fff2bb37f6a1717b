"""What waits to be sent to one client, bounded in bytes."""

from collections.abc import Iterable

from app.broadcast.messages import Message


class SendQueue:
    """One client's queue.

    Args:
        limit: bytes that may wait; a single message larger than that is taken if nothing else waits.
    """

    __slots__ = ("_bytes", "_limit", "_next", "_queue", "_rows")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: dict[int, tuple[Message, int]] = {}  # in order, with the bytes each counts for
        self._rows: dict[bytes, int] = {}  # where the newest event of a row waits that a newer one may replace
        self._next = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def bytes(self) -> int:
        """What waits and counts."""
        return self._bytes

    def put(self, message: Message) -> bool:
        """Queues a message; False, and nothing is queued, if it would be too much.

        Once the queue is half full, it takes the place of a waiting event of the same row, at the end: ids never fall.
        """
        size = len(message.text)
        older = self._rows.get(message.row) if message.row and self._bytes * 2 >= self._limit else None
        others = self._bytes - (self._queue[older][1] if older is not None else 0)
        if others and others + size > self._limit:
            return False
        if older is not None:
            del self._queue[older]
            self._bytes = others
        if message.row is not None:
            self._rows[message.row] = self._next
        self._append(message, size)
        return True

    def load(self, messages: Iterable[Message]) -> None:
        """Queues a snapshot, or what a client has missed: counts for nothing, and no newer event replaces it.

        (Or nobody could start with a large one. The texts are shared by all who get them.)
        """
        for message in messages:
            self._append(message, 0)

    def take(self) -> list[Message]:
        """Takes all."""
        messages = [message for message, _ in self._queue.values()]
        self._queue.clear()
        self._rows.clear()
        self._bytes = 0
        return messages

    def _append(self, message: Message, size: int) -> None:
        self._queue[self._next] = message, size
        self._next += 1
        self._bytes += size
