"""The fan-out: routes each event to the clients of its match. Nothing here waits for a client."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress

from app.broadcast.messages import Message, MessageBatch, Router, Update, initial_load, recovered, resync
from app.broadcast.replay_buffer import Cursor, ReplayBuffer
from app.broadcast.send_queue import SendQueue
from app.broadcast.snapshot_cache import FetchSnapshot, SnapshotCache
from app.core.canary import MUX_CHANNEL
from app.core.progress_timeout import TAKEOVER_TIMEOUT_SECONDS
from notifymux.event import Event, EventId

logger = logging.getLogger(__name__)

GONE = 0  # nobody is there to be told
EXPIRED, SLOW, SILENT, REPLACED = 3000, 3008, 3012, 3510
_REASONS = {
    EXPIRED: "the token has expired",
    SLOW: "too slow: reconnect with last_event_id",
    SILENT: "no answer to pings",
    REPLACED: "this client id connected again",
}
_TRIES = 3  # snapshots that are taken when there is no end of gaps

ReadRange = Callable[[EventId, EventId], Awaitable[list[Event] | None]]
FirstMessage = Callable[[str, EventId | None, bytes, str | None], Message]


class Client:
    """One connection's place in the hub."""

    __slots__ = ("after", "closing", "live", "match", "name", "outbox", "wake", "write")

    def __init__(self, match: str, name: str, queue_bytes: int) -> None:
        self.match, self.name = match, name
        self.outbox = SendQueue(queue_bytes)
        # Its connection's, once there is one: has what is in the outbox sent; and, while that is empty, sends messages
        # at once, or returns False and sends nothing if the client is still to take earlier ones.
        self.wake: Callable[[], None] | None = None
        self.write: Callable[[MessageBatch], bool] | None = None
        self.live = False  # hears events as they come; before, its snapshot or what it missed is being fetched
        self.after: EventId | None = None  # it has every event up to here, which this worker is still to hear
        self.closing: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def begin(self, first: Message, missed: Iterable[Message]) -> None:
        """Has it hear `first`, what was missed, and from now on everything; unless it has left."""
        if not self.closing.done():
            self.outbox.load([first, *missed])
            self.live = True
            self._wake()

    def offer(self, burst: MessageBatch) -> bool:
        """Sends messages at once if nothing waits, or else queues them; False if they would be too much."""
        if not burst.messages or (self.write and self.write(burst)):
            return True
        took_all = all(map(self.outbox.put, burst.messages))
        self._wake()
        return took_all

    def _wake(self) -> None:
        if self.wake:
            self.wake()

    def close(self, code: int) -> None:
        """Has the connection closed, with `code`."""
        if not self.closing.done():
            self.closing.set_result(code)

    @staticmethod
    def reason(code: int) -> str:
        """What a close code says in words."""
        return _REASONS.get(code, "")


class Hub:
    """All clients of this worker, by match. It is the `Sink` of the worker's source.

    Args:
        router: tells an event's match.
        take_snapshot: runs the snapshot query for a match.
        recall: fetches older events than those that are remembered.
        queue_bytes: bound of a client's queue.
        history_bytes: bound of what is remembered.
    """

    def __init__(
        self, router: Router, take_snapshot: FetchSnapshot, recall: ReadRange, queue_bytes: int, history_bytes: int
    ) -> None:
        self._router, self._recall, self._queue_bytes = router, recall, queue_bytes
        self._history = ReplayBuffer(history_bytes)
        self._snapshots = SnapshotCache(take_snapshot, self._history)
        self._matches: dict[str, dict[str, Client]] = {}
        self._started = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.slow_closes = 0
        self.recovered = self.restarted = 0  # clients that came back: to what they missed, or to a snapshot

    def __len__(self) -> int:
        return sum(map(len, self._matches.values()))

    @property
    def queue_bytes(self) -> int:
        """What waits for all clients."""
        return sum(client.outbox.bytes for clients in self._matches.values() for client in clients.values())

    def join(self, match: str, name: str, last: EventId | None = None) -> Client:
        """Adds a client: it hears every event since `last`, or a snapshot and every event from now on.

        A name that is in use in this match belongs to the newest: the older client is closed.
        """
        client = Client(match, name, self._queue_bytes)
        clients = self._matches.setdefault(match, {})
        if older := clients.get(name):
            older.close(REPLACED)
        clients[name] = client
        self._spawn(self._enter(client, last, self._history.mark))
        return client

    def leave(self, client: Client) -> None:
        """Removes this client, and not one that took over its name."""
        client.live = False
        client.closing.cancel()
        clients = self._matches.get(client.match, {})
        if clients.get(client.name) is client:
            del clients[client.name]
            if not clients:
                del self._matches[client.match]

    def start(self, position: EventId | None, recent: Sequence[Event]) -> None:
        """Begins with what was heard before; who would not wait for it starts again."""
        first = EventId.parse(recent[0].id) if recent and recent[0].id else None
        self._history.restart(EventId(first.epoch, first.sequence - 1) if first else position)
        for event in recent:
            self._record(event)
        self._note_position(recent)
        self._started.set()
        self._resync_all("this worker has found its place")

    def deliver(self, events: Sequence[Event]) -> None:
        """Sends, or queues, events for every client of their matches."""
        watched: dict[str, list[Update]] = {}
        for event in events:
            update = self._record(event)
            if update is not None and update.match in self._matches:
                watched.setdefault(update.match, []).append(update)
        self._note_position(events)
        for match, updates in watched.items():
            burst = MessageBatch(updates)
            for client in self._matches[match].values():
                if client.live and not client.offer(burst if client.after is None else _later(client, updates)):
                    self._close_slow(client)

    def gap(self, position: EventId | None, why: str) -> None:
        """Tells every client that continuity was broken, each match with one fresh snapshot."""
        self._history.restart(position)
        self._resync_all(why)

    def _record(self, event: Event) -> Update | None:
        update = None if event.channel == MUX_CHANNEL else self._router.route(event)
        if update is not None:
            self._history.record(update)
        return update

    def _note_position(self, events: Sequence[Event]) -> None:
        if last := next((event.id for event in reversed(events) if event.id), None):
            self._history.advance(EventId.parse(last))

    async def _enter(self, client: Client, last: EventId | None, now: Cursor) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(TAKEOVER_TIMEOUT_SECONDS):
                await self._started.wait()
        missed = await self._missed(client.match, last) if last else None
        if last is None or missed is None:
            self.restarted += last is not None
            await self._load(client.match, [client], now, initial_load)
        else:
            self.recovered += 1
            client.after = last
            client.begin(recovered(client.match, last), missed)

    async def _missed(self, match: str, last: EventId) -> list[Update] | None:
        """The match's events since `last`; None if they can't be had in full."""
        position = self._history.position
        if position is None or last.epoch != position.epoch:
            return None
        if last >= position:
            return []  # another worker was faster
        if (remembered := self._history.after(match, last)) is not None:
            return remembered
        mark = self._history.mark
        events = await self._recall(last, position)
        newer = self._history.since(match, mark)
        if events is None or newer is None:
            return None
        missed = [*self._updates(match, events), *newer]
        # These texts are this client's alone.
        return missed if sum(len(message.text) for message in missed) <= self._queue_bytes else None

    def _updates(self, match: str, events: Iterable[Event]) -> Iterable[Update]:
        for event in events:
            update = None if event.channel == MUX_CHANNEL else self._router.route(event)
            if update and update.match == match:
                yield update

    async def _load(self, match: str, clients: Iterable[Client], now: Cursor, first: FirstMessage) -> None:
        """Has clients begin with a snapshot, the events since it was asked for, and those since `now`."""
        for _ in range(_TRIES):
            taken = await self._snapshots.get(match)
            since = min(now, taken.mark, key=lambda mark: mark.number) if self._history.covers(now) else taken.mark
            missed = self._history.since(match, since)
            if missed is not None:
                break
        else:
            logger.warning("match %r: there was a gap during each of %d snapshots", match, _TRIES)
            for client in clients:
                client.close(SLOW)
            return
        message = first(match, since.position, taken.snapshot.data, taken.snapshot.error)
        for client in clients:
            client.begin(message, missed)

    def _resync_all(self, why: str) -> None:
        """Has every client that was live start again; the others begin after the gap anyway."""
        loads = []
        for match, clients in self._matches.items():
            if live := [client for client in clients.values() if client.live]:
                loads.append((match, live))
        if loads:
            logger.warning("%d clients start again from a snapshot: %s", sum(len(live) for _, live in loads), why)
        for match, live in loads:
            for client in live:
                client.live, client.after = False, None
            self._spawn(self._load(match, live, self._history.mark, resync))

    def _close_slow(self, client: Client) -> None:
        if not client.closing.done():
            self.slow_closes += 1
            logger.warning("client %r of match %r is too slow and is closed", client.name, client.match)
        client.live = False
        client.close(SLOW)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.critical("a bug left clients without their first message", exc_info=error)

    async def aclose(self) -> None:
        """Ends what still runs for clients."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._snapshots.aclose()


def _later(client: Client, updates: Sequence[Update]) -> MessageBatch:
    """What a client that was ahead of this worker hasn't heard yet; after that, it is one like all others."""
    later = []
    for update in updates:
        if client.after is None or update.event_id is None:
            later.append(update)
        elif EventId.parse(update.event_id) > client.after:
            client.after = None
            later.append(update)
    return MessageBatch(later)
