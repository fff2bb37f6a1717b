"""One client: its queue, and the sending of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import IntEnum
from typing import Self

from app.broadcast.messages import Message, MessageBatch
from app.broadcast.send_queue import SendQueue
from app.core.claims import NO_CLAIMS
from app.core.tasks import cancel_tasks
from notifymux.event import EventId

Write = Callable[[MessageBatch], bool]
Send = Callable[[Sequence[Message]], Awaitable[bool]]
ClientKey = tuple[str | None, str]


class CloseCode(IntEnum):
    """Why a connection ends: the code of a WebSocket's close frame, with its reason."""

    DISCONNECTED = 0, ""  # by the client, so no close frame can be sent
    BUG = 1011, "an error of the server: reconnect"
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
    """A client of one match: owns the queue of its messages and the task that sends them.

    While nothing waits, a batch is written to the connection at once. Otherwise it is queued, and a task sends the
    queue until it is empty. So nothing here waits for the connection, and an idle client has no sending task.

    Args:
        match: the match whose events the client receives.
        claims: those of its token that decide what it is shown, as `app.core.claims` makes them.
        name: the client id.
        queue_bytes: limit of the queue.
        owner: to whom the client id belongs; None where there are no tokens.
        address: where the client connects from.
    """

    __slots__ = (
        "_send",
        "_sending",
        "_write",
        "address",
        "claims",
        "closing",
        "match",
        "name",
        "owner",
        "queue",
        "skip_until",
        "streaming",
    )

    def __init__(
        self,
        match: str,
        name: str,
        queue_bytes: int,
        *,
        owner: str | None = None,
        address: str = "",
        claims: str = NO_CLAIMS,
    ) -> None:
        self.match, self.name, self.owner, self.address, self.claims = match, name, owner, address, claims
        self.queue = SendQueue(queue_bytes)
        # Done, with the code, as soon as the connection has to be closed.
        self.closing: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        # Whether `send` sends. The hub fetches the snapshot or the missed events first; `start` gets all until then.
        self.streaming = False
        self.skip_until: EventId | None = None  # events up to this one are not sent: the client has them
        self._write: Write | None = None
        self._send: Send | None = None
        self._sending: asyncio.Task[None] | None = None  # while something waits

    @property
    def key(self) -> ClientKey:
        """What no two clients of a match have in common."""
        return self.owner, self.name

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

    def start(self, first: Message, missed: Iterable[Message], skip_until: EventId | None = None) -> None:
        """Send `first` and the missed messages, then every event; do nothing if the client is closing.

        Events up to `skip_until` are skipped: the client has them from a worker that was ahead of this one.
        """
        if not self.closing.done():
            self.queue.push_unbounded([first, *missed])
            self.streaming, self.skip_until = True, skip_until
            self._start_sending()

    def send(self, batch: MessageBatch) -> bool:
        """Write messages now if nothing waits, else queue them; drop them if the client is not streaming.

        Return False, with some of them dropped, if the queue would exceed its limit.
        """
        if not self.streaming:
            return True
        if self.skip_until is not None:
            batch = self._drop_already_seen(batch)
            if not batch.messages:
                return True
        if self._sending is None and self._write is not None and self._write(batch):
            return True
        all_fit = all(map(self.queue.push, batch.messages))
        self._start_sending()
        return all_fit

    def send_control(self, batch: MessageBatch) -> None:
        """Send messages that are no events as `send` does, also while the client is not streaming.

        What does not fit into the queue is dropped.
        """
        if self.closing.done() or (self._sending is None and self._write is not None and self._write(batch)):
            return
        for message in batch.messages:
            self.queue.push(message)
        self._start_sending()

    def pause(self) -> None:
        """Drop every event until the next `start`."""
        self.streaming = False

    def close(self, code: CloseCode) -> None:
        """Have the connection closed, and send no further events."""
        self.streaming = False
        if not self.closing.done():
            self.closing.set_result(code)

    def _drop_already_seen(self, batch: MessageBatch) -> MessageBatch:
        """Return the messages that the client does not have. Ids only rise, so the first new one ends the skipping."""
        kept = []
        for message in batch.messages:
            if self.skip_until is not None and message.parsed_id is not None:
                if message.parsed_id <= self.skip_until:
                    continue
                self.skip_until = None
            kept.append(message)
        return MessageBatch(kept)

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
