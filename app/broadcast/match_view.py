"""What clients of a match share that are shown the same."""

from typing import NamedTuple


class MatchView(NamedTuple):
    """A match as clients see it whose tokens have the same values of the claims that a query names."""

    match: str
    claims: str  # those only, as `app.core.claims` makes them

    @property
    def parameters(self) -> dict[str, str | None]:
        """The query's parameters."""
        return {"match_id": self.match, "claims": self.claims}
