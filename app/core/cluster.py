"""The identity of a PostgreSQL cluster, without I/O."""

from typing import NamedTuple, Self


class Cluster(NamedTuple):
    """Which data a server has: copies and standbys share the identifier, and each promotion begins a timeline."""

    system_identifier: int
    timeline: int

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Parse what `str` returns; None for any other text, and for none."""
        identifier, _, timeline = (text or "").partition("/")
        if not (identifier.isascii() and identifier.isdigit() and timeline.isascii() and timeline.isdigit()):
            return None
        return cls(int(identifier), int(timeline))

    def __str__(self) -> str:
        return f"{self.system_identifier}/{self.timeline}"
