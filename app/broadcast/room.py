"""The subscriptions to one topic."""

from collections.abc import Iterator

from app.broadcast.client import Client
from app.broadcast.subscription import Subscription
from app.broadcast.topic import Topic


class Room:
    """The subscriptions to one topic, grouped by their clients' claims: a group is shown the same.

    Args:
        topic: all subscriptions share the object.
    """

    __slots__ = ("groups", "topic")

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
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
