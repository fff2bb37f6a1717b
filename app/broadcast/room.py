"""The subscriptions to one match."""

from collections.abc import Iterator

from app.broadcast.subscription import Subscription


class Room:
    """The subscriptions to one match, grouped by their clients' claims: a group is shown the same.

    Args:
        match: its id's text. All subscriptions share it.
    """

    __slots__ = ("groups", "match")

    def __init__(self, match: str) -> None:
        self.match = match
        self.groups: dict[str, set[Subscription]] = {}  # by the claims; none is empty

    def __iter__(self) -> Iterator[Subscription]:
        return (subscription for group in self.groups.values() for subscription in group)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.groups)

    def add(self, subscription: Subscription) -> None:
        """Add a subscription."""
        self.groups.setdefault(subscription.client.claims, set()).add(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription that is here; its client's claims are those that it was added with."""
        group = self.groups[subscription.client.claims]
        group.remove(subscription)
        if not group:
            del self.groups[subscription.client.claims]
