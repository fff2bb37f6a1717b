"""A contiguous run of an epoch's events: those that wait to be appended, or those that are in the stream."""

_MAX_TAKEN = 1000  # before the texts that follow are moved; then a text is moved about once


class EventWindow:
    """Event texts under consecutive sequences; `first` is the sequence of the first one.

    The window has no limit of its own: its owner checks `len` and `bytes`.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.bytes = 0
        # A list and no deque: batches are taken out of the middle, for each worker that is fed.
        self._texts: list[bytes] = []
        self._taken = 0  # at the beginning of the list

    def __len__(self) -> int:
        return len(self._texts) - self._taken

    @property
    def next(self) -> int:
        """The sequence after the last one."""
        return self.first + len(self)

    def append(self, text: bytes) -> None:
        """Add the event with the sequence `next`."""
        self._texts.append(text)
        self.bytes += len(text)

    def extend(self, texts: list[bytes]) -> None:
        """Add events from the sequence `next` on."""
        self._texts += texts
        self.bytes += sum(map(len, texts))

    def take(self, count: int) -> list[bytes]:
        """Remove and return the first `count` events; there are as many."""
        start, self._taken = self._taken, self._taken + count
        texts = self._texts[start : self._taken]
        self._texts[start : self._taken] = [b""] * count
        self.first += count
        self.bytes -= sum(map(len, texts))
        if self._taken > max(_MAX_TAKEN, len(self)):
            del self._texts[: self._taken]
            self._taken = 0
        return texts

    def batch(self, start: int, max_events: int, max_bytes: int) -> list[bytes]:
        """The texts from sequence `start` on: at least one, at most `max_events`, and about `max_bytes`."""
        at = self._taken + start - self.first
        texts = self._texts[at : at + max_events]
        if sum(map(len, texts)) <= max_bytes:
            return texts
        count = 0
        while max_bytes > 0:
            max_bytes -= len(texts[count])
            count += 1
        return texts[:count]
