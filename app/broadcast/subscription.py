"""One topic of a connection."""

from collections.abc import Sequence
from typing import TypeVar

from app.broadcast.client import Client
from app.broadcast.messages import Message, MessageBatch
from app.broadcast.topic import Topic
from notifymux.event import EventId

M = TypeVar("M", bound=Message)


class Subscription:
    """A topic that a client hears, from its first message on.

    Args:
        client: hears the topic.
        topic: what it hears.
    """

    __slots__ = ("client", "skip_until", "streaming", "topic")

    def __init__(self, client: Client, topic: Topic) -> None:
        self.client, self.topic = client, topic
        # Whether events are sent. `InitialLoads` gets the snapshot or the missed events first, and all until then.
        self.streaming = False
        self.skip_until: EventId | None = None  # events up to this one are not sent: the client has them

    @property
    def is_open(self) -> bool:
        """Whether the client still wants it."""
        return self.client.subscriptions.get(self.topic) is self and not self.client.closing.done()

    def start(self, skip_until: EventId | None = None) -> None:
        """Have every event sent from now on that comes after `skip_until`."""
        self.streaming, self.skip_until = True, skip_until
        self.client.hears = None

    def pause(self) -> None:
        """Drop every event until the next `start`."""
        self.streaming = False
        self.client.hears = None

    def send(self, batch: MessageBatch) -> bool:
        """Send events of the topic, or drop them if it does not stream; return False as `Client.send` does."""
        if not self.streaming:
            return True
        if self.skip_until is not None:
            batch = MessageBatch(self.unseen(batch.messages))
            if not batch.messages:
                return True
        return self.client.send(batch)

    def unseen(self, messages: Sequence[M]) -> Sequence[M]:
        """Return the messages that the client does not have. Ids only rise, so the first new one ends the skipping."""
        if self.skip_until is None:
            return messages
        kept = []
        for message in messages:
            if self.skip_until is not None and message.parsed_id is not None:
                if message.parsed_id <= self.skip_until:
                    continue
                self.skip_until = self.client.hears = None
            kept.append(message)
        return kept
