"""What clients of a topic share that are shown the same."""

from typing import NamedTuple

from app.broadcast.topic import Topic, topic_name


class MatchView(NamedTuple):
    """A match, or another topic, as clients see it whose tokens have the same values of the claims in a query."""

    match: Topic
    claims: str  # those only, as `app.core.claims` makes them

    @property
    def key(self) -> str:
        """What the match or the topic is called."""
        return topic_name(self.match)[0]

    @property
    def parameters(self) -> dict[str, str | None]:
        """The query's parameters."""
        name, text = topic_name(self.match)
        return {name: text, "claims": self.claims}
