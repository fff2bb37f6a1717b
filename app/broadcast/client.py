"""A connection of a client: its queue, and the sending of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Self

from app.broadcast.messages import Message, MessageBatch
from app.broadcast.send_queue import SendQueue
from app.broadcast.topic import Topic
from app.core.claims import NO_CLAIMS
from app.core.tasks import cancel_tasks

if TYPE_CHECKING:
    from app.broadcast.subscription import Subscription

Write = Callable[[MessageBatch], bool]
Send = Callable[[Sequence[Message]], Awaitable[bool]]
ClientKey = tuple[str | None, str | None, str]


class CloseCode(IntEnum):
    """Why a connection ends: the code of a WebSocket's close frame, with its reason."""

    DISCONNECTED = 0, ""  # by the client, so no close frame can be sent
    BUG = 1011, "an error of the server: reconnect"
    SERVICE_RESTART = 1012, "this worker ends: reconnect with last_event_id"
    UNCHECKED = 1013, "whether the client may have this match can't be found out: reconnect later"
    EXPIRED = 3000, "the token has expired"
    REVOKED = 3003, "the client may not have this match any longer"
    SLOW = 3008, "too slow: reconnect with last_event_id"
    SILENT = 3012, "no answer to pings"
    REPLACED = 3510, "this client id connected again"

    reason: str

    def __new__(cls, code: int, reason: str) -> Self:
        """Make a member that is the number."""
        member = int.__new__(cls, code)
        member._value_, member.reason = code, reason
        return member


class Client:
    """A connection, with the matches that it is subscribed to: owns the queue of its messages and the task that sends.

    While nothing waits, a batch is written to the connection at once. Otherwise it is queued, and a task sends the
    queue until it is empty. So nothing here waits for the connection, and an idle client has no sending task.

    Args:
        name: the client id.
        queue_bytes: limit of the queue.
        scope: within which no two clients of an owner have the same name: a match; None: all connections for many.
        owner: to whom the client id belongs; None where there are no tokens.
        address: where the client connects from.
        claims: those of its token that decide what it is shown, as `app.core.claims` makes them.
        has_one_position: whether one id stands for the client's place in all of its matches, as on an event stream.
            Then they start together.
    """

    __slots__ = (
        "_send",
        "_sending",
        "_write",
        "address",
        "claims",
        "closing",
        "has_one_position",
        "hears",
        "name",
        "owner",
        "queue",
        "scope",
        "subscriptions",
    )

    def __init__(
        self,
        name: str,
        queue_bytes: int,
        *,
        scope: str | None = None,
        owner: str | None = None,
        address: str = "",
        claims: str = NO_CLAIMS,
        has_one_position: bool = False,
    ) -> None:
        self.name, self.scope, self.owner, self.address, self.claims = name, scope, owner, address, claims
        self.has_one_position = has_one_position
        self.subscriptions: dict[Topic, Subscription] = {}
        # These topics, if every event of each is sent; None if that is not so, or not known: see `Delivery`.
        self.hears: frozenset[Topic] | None = None
        self.queue = SendQueue(queue_bytes)
        # Done, with the code, as soon as the connection has to be closed.
        self.closing: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        self._write: Write | None = None
        self._send: Send | None = None
        self._sending: asyncio.Task[None] | None = None  # while something waits

    @property
    def key(self) -> ClientKey:
        """What no two clients of a worker have in common."""
        return self.scope, self.owner, self.name

    @property
    def expects_first_message(self) -> bool:
        """Whether it has subscribed, and has not been sent anything of its matches, or not since a gap."""
        return bool(self.subscriptions) and not any(each.streaming for each in self.subscriptions.values())

    def attach(self, write: Write, send: Send) -> None:
        """Send what is queued, and every message from now on, over a connection.

        Args:
            write: sends messages now; returns False, and sends nothing, if that is not possible without waiting.
            send: sends messages and waits while the client does not read; returns False if the connection is lost.
        """
        self._write, self._send = write, send
        if self.queue:
            self._start_sending()

    async def detach(self) -> list[Exception]:
        """Stop sending; return the exception of a failed `send`, if there was one."""
        self._write = self._send = None
        return await cancel_tasks([self._sending] if self._sending else [])

    def send(self, batch: MessageBatch) -> bool:
        """Write messages now if nothing waits, else queue them; drop them if the client is closing.

        Return False, with some of them dropped, if the queue would exceed its limit.
        """
        if self._sending is None and self._write is not None and not self.closing.done() and self._write(batch):
            return True
        return self.enqueue(batch)

    def enqueue(self, batch: MessageBatch) -> bool:
        """Do what `send` does where messages can't be written now."""
        if self.closing.done():
            return True
        all_fit = all(map(self.queue.push, batch.messages))
        self._start_sending()
        return all_fit

    def send_unbounded(self, messages: Iterable[Message]) -> None:
        """Send a snapshot and missed events, which count for nothing in the queue, unless the client is closing."""
        if not self.closing.done():
            self.queue.push_unbounded(messages)
            self._start_sending()

    def close(self, code: CloseCode) -> bool:
        """Have the connection closed, and send no further events; return whether it was open."""
        for subscription in self.subscriptions.values():
            subscription.pause()
        if self.closing.done():
            return False
        self.closing.set_result(code)
        return True

    def _start_sending(self) -> None:
        if self._send is not None and self._sending is None:
            self._sending = asyncio.create_task(self._send_queue(self._send))

    async def _send_queue(self, send: Send) -> None:
        try:
            while messages := self.queue.drain():
                if not await send(messages):
                    self.close(CloseCode.DISCONNECTED)
                    return
        except BaseException:
            self.close(CloseCode.DISCONNECTED)
            raise
        self._sending = None
