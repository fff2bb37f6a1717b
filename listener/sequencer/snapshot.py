"""Which transactions others can see: PostgreSQL's `pg_current_snapshot()`.

A replication slot hands a transaction out when its commit is in the WAL. Queries see it later: its backend first waits
for the synchronous standby. An event that is sent before has a client load the row as it was.
"""

from collections.abc import Collection
from typing import NamedTuple, Self

_XID_BITS = 32


class Snapshot(NamedTuple):
    """A snapshot; ids of transactions have 64 bits.

    Args:
        xmin: every id below is finished.
        xmax: this id and every one above were not assigned, or not finished.
        in_progress: the ids between them that were not finished.
    """

    xmin: int
    xmax: int
    in_progress: Collection[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse PostgreSQL's text, `xmin:xmax:xip,xip`.

        Raises:
            ValueError: it is none.
        """
        xmin, xmax, listed = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, filter(None, listed.split(",")))))

    def is_finished(self, xid: int) -> bool:
        """Whether others see a transaction. `xid` has 32 bits, as replication sends it, and is near the snapshot."""
        full = self._widen(xid)
        return full < self.xmin or (full < self.xmax and full not in self.in_progress)

    def _widen(self, xid: int) -> int:
        """The id with 64 bits: the one with these low bits that is nearest to `xmax`."""
        half = 1 << (_XID_BITS - 1)
        return self.xmax + (xid - self.xmax + half) % (1 << _XID_BITS) - half
