"""Updates that wait although their own topic has passed them on: one of another topic before them waits for its query.

A connection hears all of its topics in commit order, and no id that it is sent may pass an update that is to come. So
what comes after the first update that waits, of any topic that the connection hears, is held back with it. That takes
no longer than the query may take, because its time counts from when this worker heard the update.
"""

from collections.abc import Sequence

from app.broadcast.client import Client
from app.broadcast.commit_order import in_commit_order
from app.broadcast.messages import Update
from app.broadcast.row_queries import RowQueries
from app.broadcast.subscription import Subscription


class _Held:
    """What is held back for one client, in parts, each of which is in order."""

    __slots__ = ("bytes", "first", "parts")

    def __init__(self, updates: Sequence[Update]) -> None:
        self.parts, self.first = [updates], updates[0]
        self.bytes = sum(update.size for update in updates)  # of payloads

    def add(self, updates: Sequence[Update]) -> None:
        self.parts.append(updates)
        self.first = in_commit_order([[self.first], updates[:1]])[0]
        self.bytes += sum(update.size for update in updates)

    def __len__(self) -> int:
        return sum(map(len, self.parts))


class HeldUpdates:
    """What is held back for each client.

    Args:
        rows: knows which updates wait for their queries.
        limit: bytes of payloads that may be held back for one client; a single larger one is held back nevertheless.
    """

    def __init__(self, rows: RowQueries, limit: int) -> None:
        self._rows, self._limit = rows, limit
        self._held: dict[Client, _Held] = {}  # none is empty

    @property
    def may_hold(self) -> bool:
        """Whether anything is held back, or has to be."""
        return bool(self._held) or self._rows.has_waiting

    def pass_on(self, client: Client, newest: Sequence[Update]) -> Sequence[Update]:
        """Return what may be sent to a client now, in order, of what was held back and of updates that are passed on.

        The rest is held back until the next call.
        """
        topics = [topic for topic, subscription in client.subscriptions.items() if subscription.streaming]
        held = self._held.get(client)
        updates = newest
        if held and self._rows.count_before_waiting(topics, [held.first]):
            del self._held[client]
            updates = in_commit_order([*held.parts, newest])
        count = self._rows.count_before_waiting(topics, updates)
        if count == len(updates):
            return updates
        self._hold(client, updates[count:])
        return updates[:count]

    def exceeds_limit(self, client: Client) -> bool:
        """Whether more is held back for a client than may wait for it."""
        held = self._held.get(client)
        return held is not None and held.bytes > self._limit and len(held) > 1

    def forget(self, subscription: Subscription) -> None:
        """Drop what is held back of one topic for its client, unless the client hears it by another topic too."""
        if held := self._held.pop(subscription.client, None):
            for part in held.parts:
                if kept := [update for update in part if _is_heard(update, subscription)]:
                    self._hold(subscription.client, kept)

    def drop(self, client: Client) -> None:
        """Drop all that is held back for a client."""
        self._held.pop(client, None)

    def clear(self) -> None:
        """Drop all: every client starts again."""
        self._held.clear()

    def _hold(self, client: Client, updates: Sequence[Update]) -> None:
        if held := self._held.get(client):
            held.add(updates)
        else:
            self._held[client] = _Held(updates)


def _is_heard(update: Update, ended: Subscription) -> bool:
    """Whether a client hears an update also without one of its subscriptions."""
    heard = ended.client.subscriptions
    others = (heard.get(topic) for topic in update.topics if topic != ended.topic)
    return any(other is not None and other.streaming for other in others)
