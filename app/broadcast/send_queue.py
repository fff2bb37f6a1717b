"""The messages that wait for one client, limited in bytes."""

from collections.abc import Iterable

from app.broadcast.messages import Message


class SendQueue:
    """A queue of messages in which a newer state of a row may replace an older one.

    Args:
        limit: bytes that may wait; a single larger message is accepted while no other counts.
    """

    __slots__ = ("_limit", "_next", "_queue", "_rows", "bytes")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: dict[int, tuple[Message, int]] = {}  # in order; each message with the bytes that it counts for
        self._rows: dict[bytes, int] = {}  # the key in `_queue` of the newest replaceable message of each row
        self._next = 0
        self.bytes = 0  # that wait and count

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, message: Message) -> bool:
        """Queue a message. Return False, and queue nothing, if the queue would exceed its limit.

        Once the queue is half full, a waiting message of the same row is removed. The new one still goes to the end, so
        that ids never fall.
        """
        size = len(message.text)
        older = self._rows.get(message.row) if message.row and self.bytes * 2 >= self._limit else None
        others = self.bytes - (self._queue[older][1] if older is not None else 0)
        if others and others + size > self._limit:
            return False
        if older is not None:
            del self._queue[older]
            self.bytes = others
        if message.row is not None:
            self._rows[message.row] = self._next
        self._append(message, size)
        return True

    def push_unbounded(self, messages: Iterable[Message]) -> None:
        """Queue a snapshot, or the events that a client missed: they count for nothing and are never replaced.

        Otherwise no client could start with a large snapshot. All clients of a match share these texts.
        """
        for message in messages:
            self._append(message, 0)

    def drain(self) -> list[Message]:
        """Remove and return all messages."""
        messages = [message for message, _ in self._queue.values()]
        self._queue.clear()
        self._rows.clear()
        self.bytes = 0
        return messages

    def _append(self, message: Message, size: int) -> None:
        self._queue[self._next] = message, size
        self._next += 1
        self.bytes += size
