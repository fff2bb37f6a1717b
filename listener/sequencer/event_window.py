"""A contiguous run of an epoch's events: those that wait to be appended, or those that are in the stream."""

from collections import deque


class EventWindow:
    """Event texts under consecutive sequences; `first` is the sequence of the first one.

    The window has no limit of its own: its owner checks `len` and `bytes`.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.bytes = 0
        self._texts: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def next(self) -> int:
        """The sequence after the last one."""
        return self.first + len(self._texts)

    def append(self, text: bytes) -> None:
        """Add the event with the sequence `next`."""
        self._texts.append(text)
        self.bytes += len(text)

    def pop(self) -> bytes:
        """Remove and return the first event."""
        text = self._texts.popleft()
        self.first += 1
        self.bytes -= len(text)
        return text

    def batch(self, start: int, max_events: int, max_bytes: int) -> list[bytes]:
        """The texts from sequence `start` on: at least one, at most `max_events`, and about `max_bytes`."""
        texts: list[bytes] = []
        for index in range(start - self.first, min(start - self.first + max_events, len(self._texts))):
            texts.append(self._texts[index])
            max_bytes -= len(self._texts[index])
            if max_bytes <= 0:
                break
        return texts
