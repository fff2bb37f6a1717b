"""A contiguous run of numbered events of one epoch: what waits to be appended, or what is known to be appended."""

from collections import deque


class EventWindow:
    """Texts under consecutive sequences, `first` being the first one's.

    It grows without a bound of its own: who fills it looks at `len` and `bytes` and decides what happens.
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
        """Adds the event `next`."""
        self._texts.append(text)
        self.bytes += len(text)

    def pop(self) -> bytes:
        """Takes the first event out."""
        text = self._texts.popleft()
        self.first += 1
        self.bytes -= len(text)
        return text

    def batch(self, start: int, events: int, size: int) -> list[bytes]:
        """The texts from sequence `start` on: at least one, at most `events`, about `size` bytes."""
        texts: list[bytes] = []
        for index in range(start - self.first, min(start - self.first + events, len(self._texts))):
            texts.append(self._texts[index])
            size -= len(self._texts[index])
            if size <= 0:
                break
        return texts
