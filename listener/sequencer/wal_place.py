"""Where the WAL has a message: the order in which a replication slot hands messages out, and whose order that is."""

from typing import NamedTuple, Self

_FIELD = b'"place":"'  # the last one of an event's text, see notifymux.event.encode


class WalPlace(NamedTuple):
    """A message's place. Within one origin and timeline, places grow in the order of the commits.

    Args:
        origin: a hash of the source, the cluster, the database and the channels: what is counted.
        timeline: of the server that sent it.
        commit: the LSN of its transaction's commit record.
        lsn: of the message itself.
    """

    origin: str
    timeline: int
    commit: int
    lsn: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse what `str` returns; None for any other text."""
        try:
            origin, timeline, lsns = text.split(":")
            commit, lsn = lsns.split("-")
            return cls(origin, int(timeline), int(commit, 16), int(lsn, 16))
        except ValueError:
            return None

    @classmethod
    def of_text(cls, text: bytes) -> Self | None:
        """The place in an event's text; None for an event that did not come out of the WAL."""
        return cls.parse(place_of(text))

    def __str__(self) -> str:
        return f"{self.origin}:{self.timeline}:{self.commit:X}-{self.lsn:X}"


def place_of(text: bytes) -> str:
    """The place in an event's text, as it is written there; empty without one."""
    _, found, rest = text.rpartition(_FIELD)
    return rest.removesuffix(b'"}').decode(errors="replace") if found and rest.endswith(b'"}') else ""
