"""The subscriptions to one topic."""

from collections.abc import Iterator

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
