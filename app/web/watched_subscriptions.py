"""The topics of a connection for many, each until its client ends it or may not have it any longer."""

from collections.abc import Sequence
from functools import partial

from app.broadcast.client import Client, CloseCode
from app.broadcast.hub import Hub
from app.broadcast.match_rights import MatchRights, StopWatching
from app.broadcast.messages import MessageBatch, refused
from app.broadcast.topic import Topic
from notifymux.event import EventId

FORBIDDEN = "forbidden", "the token is not good for this match"
UNAVAILABLE = "unavailable", "whether the token is good for this match can't be found out now: try again later"


class WatchedSubscriptions:
    """Subscribes a client to topics, and ends a subscription alone when the right to it is withdrawn.

    Args:
        hub: this worker's.
        client: hears the topics.
        rights: watches who may have a topic; None without a query.
        needs_one: whether the connection ends with the last subscription, as its client can't ask for another.
    """

    def __init__(self, hub: Hub, client: Client, rights: MatchRights | None, *, needs_one: bool) -> None:
        self._hub, self.client, self._rights, self._needs_one = hub, client, rights, needs_one
        self._watches: dict[Topic, StopWatching] = {}  # by topic

    def start(self, starts: Sequence[tuple[Topic, EventId | None]], claims: str) -> None:
        """Subscribe to topics, all from one moment on, for which the client's claims, all of them, are good."""
        self._hub.subscribe_all(self.client, starts)
        for topic, _ in starts:
            self.watch(topic, claims)

    def watch(self, topic: Topic, claims: str) -> None:
        """Watch the right to a topic that is subscribed, from now on by these claims."""
        if self._rights is None:
            return
        self._stop_watching(topic)
        # Before the watch begins: it may end the subscription at once.
        self._watches[topic] = _nothing
        stop = self._rights.watch(topic, claims, self.client.address, partial(self._revoke, topic))
        if topic in self._watches:
            self._watches[topic] = stop
        else:
            stop()

    def end(self, topic: Topic) -> bool:
        """End a subscription; return whether there was one."""
        self._stop_watching(topic)
        return self._hub.unsubscribe(self.client, topic)

    def renew(self, owner: str | None, claims: str) -> bool:
        """Go on under another token; return whether all subscriptions have ended, as they show something else now."""
        return self._hub.renew(self.client, owner, claims)

    def close(self) -> None:
        """Watch nothing any longer."""
        while self._watches:
            self._watches.popitem()[1]()

    def answer(self, batch: MessageBatch) -> None:
        """Send the client an answer. One that reads none of them is closed, since an answer can't be left out."""
        if not self.client.send(batch):
            self.client.close(CloseCode.SLOW)

    def _stop_watching(self, topic: Topic) -> None:
        if stop := self._watches.pop(topic, None):
            stop()

    def _revoke(self, topic: Topic, code: CloseCode) -> bool:
        if self.client.closing.done() or not self.end(topic):
            return False
        self.answer(refused(*(FORBIDDEN if code is CloseCode.REVOKED else UNAVAILABLE), topic))
        if self._needs_one and not self.client.subscriptions:
            self.client.close(code)
        return True


def _nothing() -> None:
    """Stop watching what is not watched yet."""
