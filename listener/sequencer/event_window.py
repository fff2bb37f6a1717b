"""A contiguous run of an epoch's events: those that wait to be appended, or those that are in the stream."""

_MAX_POPPED = 1000  # before the texts that follow are moved; then a text is moved about once


class EventWindow:
    """Event texts under consecutive sequences; `first` is the sequence of the first one.

    The window has no limit of its own: its owner checks `len` and `bytes`.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.bytes = 0
        # A list and no deque: batches are taken out of the middle, for each worker that is fed.
        self._texts: list[bytes] = []
        self._popped = 0  # at the beginning of the list

    def __len__(self) -> int:
        return len(self._texts) - self._popped

    @property
    def next(self) -> int:
        """The sequence after the last one."""
        return self.first + len(self)

    def append(self, text: bytes) -> None:
        """Add the event with the sequence `next`."""
        self._texts.append(text)
        self.bytes += len(text)

    def pop(self) -> bytes:
        """Remove and return the first event."""
        text = self._texts[self._popped]
        self._texts[self._popped] = b""
        self._popped += 1
        self.first += 1
        self.bytes -= len(text)
        if self._popped > max(_MAX_POPPED, len(self)):
            del self._texts[: self._popped]
            self._popped = 0
        return text

    def batch(self, start: int, max_events: int, max_bytes: int) -> list[bytes]:
        """The texts from sequence `start` on: at least one, at most `max_events`, and about `max_bytes`."""
        at = self._popped + start - self.first
        texts = self._texts[at : at + max_events]
        if sum(map(len, texts)) <= max_bytes:
            return texts
        count = 0
        while max_bytes > 0:
            max_bytes -= len(texts[count])
            count += 1
        return texts[:count]
