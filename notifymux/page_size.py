"""How many entries of the stream to read at once. Redis counts entries; what they take is bounded here."""

from collections.abc import Collection

_FIRST = 50
_MAX = 200  # so that small ones which large ones follow are not many
_BYTES = 4 << 20  # of a page, if its entries are as large as those of the page before


class PageSize:
    """The size of the next page of one reading: as many entries as should fit, by those of the page before."""

    def __init__(self) -> None:
        self.entries = _FIRST

    def learn(self, sizes: Collection[int]) -> None:
        """Take the sizes, in bytes, of the texts of a page."""
        if total := sum(sizes):
            self.entries = max(1, min(_MAX, _BYTES * len(sizes) // total))
