"""What one delivery of events sends to each connection: to one with several topics one batch, in commit order."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from app.broadcast.client import Client
from app.broadcast.held_updates import HeldUpdates
from app.broadcast.messages import Message, MessageBatch, Update
from app.broadcast.room import Room
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
            for subscription in subscriptions.values():
                if not subscription.send(batch):
                    self._too_slow(subscription.client)

    def _send_merged(self, released: Released) -> None:
        batches = _Batches(released)
        may_hold = self._held is not None and self._held.may_hold
        for client in self._clients(released):
            hears = client.hears or _hears(client)
            if hears is None or may_hold:
                self._send_selected(client, batches)
            else:
                self._send(client, batches.of_topics(client.claims, hears))

    def _clients(self, topics: Iterable[Topic]) -> set[Client]:
        """Return all that hear any of some topics, or will."""
        return set().union(*[group for topic in topics for group in self._rooms[topic].groups.values()])

    def _send_selected(self, client: Client, batches: "_Batches") -> None:
        """Send a client what it does not have and what no query holds back, and what was held back until now."""
        updates = batches.select(client)
        if self._held and len(client.subscriptions) > 1:
            updates = self._held.pass_on(client, updates)
            if self._held.exceeds_limit(client):
                self._too_slow(client)
                return
        if updates:
            self._send(client, batches.of(client.claims, updates))

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
        self._batches: dict[tuple[str, frozenset[Topic] | tuple[int, ...]], MessageBatch] = {}

    def of_topics(self, claims: str, topics: frozenset[Topic]) -> MessageBatch:
        """Return all updates of these topics in commit order, for clients with these claims."""
        batch = self._batches.get((claims, topics))
        if batch is None:
            updates = _in_order(each for topic, each in self._released.items() if topic in topics)
            batch = self._batches[claims, topics] = MessageBatch(shown(updates, claims))
        return batch

    def select(self, client: Client) -> Sequence[Update]:
        """Return what a client is to be sent, in commit order: what it hears and does not have."""
        subscriptions = [client.subscriptions[topic] for topic in self._released if topic in client.subscriptions]
        return _in_order(each.unseen(self._released[each.topic]) for each in subscriptions if each.streaming)

    def of(self, claims: str, updates: Sequence[Update]) -> MessageBatch:
        """Return these updates, for clients with these claims."""
        key = claims, tuple(map(id, updates))
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = MessageBatch(shown(updates, claims))
        return batch


def _hears(client: Client) -> frozenset[Topic] | None:
    """Return the topics of a client, and keep them, if every event of each is sent to it; else None.

    A set that is kept has its hash, by which the batch of all who hear the same is found.
    """
    subscriptions = client.subscriptions.values()
    if all(each.streaming and each.skip_until is None for each in subscriptions):
        client.hears = frozenset(client.subscriptions)
    return client.hears


def _in_order(parts: Iterable[Sequence[Update]]) -> list[Update]:
    """Merge updates in commit order, each once: one of several topics is in several parts."""
    by_serial = {update.serial: update for part in parts for update in part}
    return [by_serial[serial] for serial in sorted(by_serial)]
