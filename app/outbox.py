"""What waits to be sent to one client, bounded in bytes."""

import asyncio
from collections import deque


class Slot:
    """A message's place in the queue before its text is known: what is behind it waits."""

    def __init__(self) -> None:
        self.text: bytes | None = None


class Outbox:
    """One client's queue.

    Args:
        limit: bytes that may wait; a single message larger than that is taken if nothing else waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: deque[bytes | Slot] = deque()
        self._bytes = 0
        self._ready = asyncio.Event()

    def put(self, text: bytes) -> bool:
        """Queues a message; False, and nothing is queued, if it would be too much."""
        if self._bytes and self._bytes + len(text) > self._limit:
            return False
        self._queue.append(text)
        self._bytes += len(text)
        self._ready.set()
        return True

    def reserve(self) -> Slot:
        """Queues a message whose text comes later, by `fill`."""
        slot = Slot()
        self._queue.append(slot)
        return slot

    def fill(self, slot: Slot, text: bytes) -> None:
        """Gives a reserved message its text; a snapshot counts for nothing, or nobody could start with a large one."""
        slot.text = text
        self._ready.set()

    @property
    def held(self) -> bool:
        """Whether nothing can be sent before a text is known that comes later."""
        first = self._queue[0] if self._queue else None
        return isinstance(first, Slot) and first.text is None

    async def take(self) -> list[bytes]:
        """Waits for messages and takes all that can be sent, up to the first whose text isn't known yet."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            if texts := self._sendable():
                return texts

    def _sendable(self) -> list[bytes]:
        texts: list[bytes] = []
        while self._queue:
            first = self._queue[0]
            text = first.text if isinstance(first, Slot) else first
            if text is None:
                break
            self._queue.popleft()
            self._bytes -= 0 if isinstance(first, Slot) else len(text)
            texts.append(text)
        return texts
