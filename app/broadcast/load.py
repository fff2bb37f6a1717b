"""What subscriptions to one topic start with."""

from collections.abc import Callable, Sequence

from app.broadcast.client import Client
from app.broadcast.messages import Message, Update
from app.broadcast.replay_buffer import Cursor
from app.broadcast.subscription import Subscription
from app.broadcast.topic import Topic
from notifymux.event import EventId

Build = Callable[[Topic, EventId | None, bytes, str | None], Message]


class Load:
    """The first message for subscriptions to one topic, and the updates that follow it.

    Args:
        subscriptions: of one topic, whose clients have the same claims.
        last: the last id that their client has; None if it has nothing.
        joined: the place in the replay buffer from which on nothing may be missing.
        build: makes the first message of a snapshot.
    """

    __slots__ = (
        "build",
        "cursor",
        "first",
        "is_recovered",
        "joined",
        "last",
        "position",
        "skip_until",
        "subscriptions",
        "updates",
    )

    def __init__(
        self, subscriptions: Sequence[Subscription], last: EventId | None, joined: Cursor, build: Build
    ) -> None:
        self.subscriptions, self.last, self.joined, self.build = subscriptions, last, joined, build
        self.reset()

    def reset(self) -> None:
        """Forget what was fetched."""
        self.first: Message | None = None
        self.is_recovered = False  # whether it continues after `last`
        self.position: EventId | None = None  # of the first message
        self.skip_until: EventId | None = None
        self.updates: list[Update] = []  # after the first message and before the cursor
        self.cursor = self.joined

    def recover(self, first: Message, last: EventId, updates: list[Update], cursor: Cursor) -> None:
        """Begin with the updates after the last id that the client has, up to a place in the replay buffer."""
        self.first, self.is_recovered, self.position, self.skip_until = first, True, last, last
        self.updates, self.cursor = updates, cursor

    def begin_at(self, start: Cursor, first: Message, skip_until: EventId | None) -> None:
        """Begin with a snapshot, and nothing after it yet."""
        self.first, self.position, self.skip_until = first, start.position, skip_until
        self.updates, self.cursor = [], start

    @property
    def topic(self) -> Topic:
        """What the subscriptions hear."""
        return self.subscriptions[0].topic

    @property
    def client(self) -> Client:
        """The client; the first one, if the load is for several."""
        return self.subscriptions[0].client

    @property
    def claims(self) -> str:
        """The claims that decide what is shown."""
        return self.client.claims

    @property
    def open_subscriptions(self) -> list[Subscription]:
        """Those that have not ended."""
        return [each for each in self.subscriptions if each.is_open]

    @property
    def is_wanted(self) -> bool:
        """Whether any has not ended."""
        return any(each.is_open for each in self.subscriptions)
