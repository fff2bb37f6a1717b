"""What one delivery of events sends to each connection: to one with several topics one batch, in commit order."""

from collections.abc import Callable, Mapping, Sequence

from app.broadcast.client import Client
from app.broadcast.held_updates import HeldUpdates
from app.broadcast.messages import Message, MessageBatch, Update
from app.broadcast.room import Room
from app.broadcast.subscription import Subscription
from app.broadcast.topic import Topic

Released = Mapping[Topic, Sequence[Update]]


def shown(updates: Sequence[Update], claims: str) -> list[Message]:
    """Return the messages of updates that have the results of their queries, for clients with these claims."""
    return [update.shown_to(claims) for update in updates]


class Delivery:
    """Sends updates to the clients of their topics. Clients that hear the same of a delivery share one batch.

    Args:
        rooms: by topic.
        held: what is held back for clients; None without queries.
        too_slow: is called with a client for which more waits than may.
    """

    def __init__(
        self, rooms: Mapping[Topic, Room], held: HeldUpdates | None, too_slow: Callable[[Client], None]
    ) -> None:
        self._rooms, self._held, self._too_slow = rooms, held, too_slow

    def send(self, released: Released) -> None:
        """Send updates that nothing of their own topic delays.

        Args:
            released: by topic, each of which has subscriptions; in order. A topic without updates is one whose first
                update that waits has changed.
        """
        if len(released) == 1 and not (self._held and self._held.may_hold):
            [(topic, updates)] = released.items()
            self._send_topic(topic, updates)
        elif released:
            self._send_merged(released)

    def release(self, client: Client) -> None:
        """Send what no longer has to be held back for a client, since it hears a topic less."""
        if self._held and (updates := self._held.pass_on(client, [])):
            self._send(client, MessageBatch(shown(updates, client.claims)))

    def _send_topic(self, topic: Topic, updates: Sequence[Update]) -> None:
        for claims, subscriptions in self._rooms[topic].groups.items():
            batch = MessageBatch(shown(updates, claims) if self._held else updates)
            for subscription in subscriptions:
                if not subscription.send(batch):
                    self._too_slow(subscription.client)

    def _send_merged(self, released: Released) -> None:
        batches = _Batches(released)
        heard: dict[Client, list[Subscription]] = {}
        for topic in released:
            for subscription in self._rooms[topic]:
                heard.setdefault(subscription.client, []).append(subscription)
        for client, subscriptions in heard.items():
            self._send_to(client, [each for each in subscriptions if each.streaming], batches)

    def _send_to(self, client: Client, subscriptions: Sequence[Subscription], batches: "_Batches") -> None:
        """Send a client what it hears on some of its subscriptions, which stream, and what was held back until now."""
        topics = tuple(each.topic for each in subscriptions)
        is_plain = all(each.skip_until is None for each in subscriptions)
        updates = batches.merged(topics) if is_plain else batches.merge(subscriptions)
        if self._held and len(client.subscriptions) > 1:
            passed = self._held.pass_on(client, updates)
            if self._held.exceeds_limit(client):
                self._too_slow(client)
                return
            is_plain = is_plain and passed is updates
            updates = passed
        if updates:
            batch = batches.of_topics(client.claims, topics) if is_plain else batches.of(client.claims, updates)
            self._send(client, batch)

    def _send(self, client: Client, batch: MessageBatch) -> None:
        if not client.send(batch):
            self._too_slow(client)


class _Batches:
    """The batches of one delivery, each built when the first client needs it.

    Args:
        released: by topic, in order.
    """

    def __init__(self, released: Released) -> None:
        self._released = released
        self._merged: dict[tuple[Topic, ...], Sequence[Update]] = {}
        self._batches: dict[tuple[str, tuple[Topic, ...] | tuple[int, ...]], MessageBatch] = {}

    def merged(self, topics: tuple[Topic, ...]) -> Sequence[Update]:
        """Return the updates of some topics in commit order."""
        updates = self._merged.get(topics)
        if updates is None:
            parts = [self._released[topic] for topic in topics]
            updates = parts[0] if len(parts) == 1 else _in_order(parts)
            self._merged[topics] = updates
        return updates

    def merge(self, subscriptions: Sequence[Subscription]) -> Sequence[Update]:
        """Return what subscriptions are to be sent, in commit order, without what their clients have."""
        return _in_order([each.unseen(self._released[each.topic]) for each in subscriptions])

    def of_topics(self, claims: str, topics: tuple[Topic, ...]) -> MessageBatch:
        """Return all updates of some topics, for clients with these claims."""
        batch = self._batches.get((claims, topics))
        if batch is None:
            batch = self._batches[claims, topics] = MessageBatch(shown(self.merged(topics), claims))
        return batch

    def of(self, claims: str, updates: Sequence[Update]) -> MessageBatch:
        """Return these updates, for clients with these claims."""
        key = claims, tuple(map(id, updates))
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = MessageBatch(shown(updates, claims))
        return batch


def _in_order(parts: Sequence[Sequence[Update]]) -> list[Update]:
    """Merge updates in commit order, each once: one of several topics is in several parts."""
    by_serial = {update.serial: update for part in parts for update in part}
    return [by_serial[serial] for serial in sorted(by_serial)]
