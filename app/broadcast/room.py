"""The subscriptions to one match."""

from collections.abc import Iterator

from app.broadcast.client import Client
from app.broadcast.subscription import Subscription


class Room:
    """The subscriptions to one match, grouped by their clients' claims: a group is shown the same.

    Args:
        match: its id's text. All subscriptions share it.
    """

    __slots__ = ("groups", "match")

    def __init__(self, match: str) -> None:
        self.match = match
        # By the claims; none is empty. Each has the subscriptions by client, since clients are what sets are made of.
        self.groups: dict[str, dict[Client, Subscription]] = {}

    def __iter__(self) -> Iterator[Subscription]:
        return (subscription for group in self.groups.values() for subscription in group.values())

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.groups)

    def add(self, subscription: Subscription) -> None:
        """Add a subscription."""
        self.groups.setdefault(subscription.client.claims, {})[subscription.client] = subscription

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription that is here; its client's claims are those that it was added with."""
        group = self.groups[subscription.client.claims]
        del group[subscription.client]
        if not group:
            del self.groups[subscription.client.claims]
