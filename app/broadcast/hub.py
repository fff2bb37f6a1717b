"""The fan-out: each event to the clients of its match. Nothing here waits for a client."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress

from app.broadcast.client import Client, ClientKey, CloseCode
from app.broadcast.messages import Message, MessageBatch, Update, initial_load, recovered, resync
from app.broadcast.replay_buffer import Cursor, ReplayBuffer
from app.broadcast.router import Router
from app.broadcast.snapshot_cache import CachedSnapshot, FetchSnapshot, SnapshotCache
from app.broadcast.unroutable import UnroutableEvents
from app.core.log_throttle import LogThrottle
from app.core.progress_timeout import TAKEOVER_TIMEOUT_SECONDS
from app.core.tasks import cancel_tasks, start_task
from notifymux.event import Event, EventId

logger = logging.getLogger(__name__)

_CATCH_UP_SECONDS = 3.0  # that a worker may be behind another from which a client comes
_MAX_SNAPSHOTS = 3  # that are fetched for a client while gaps make each of them useless

ReadRange = Callable[[EventId, EventId], Awaitable[list[Event] | None]]
FirstMessage = Callable[[str, EventId | None, bytes, str | None], Message]


class _Crowd:
    """Clients of one match that wait for one snapshot, and the task that waits for them, which they end by leaving."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self.clients = {client for client in clients if not client.closing.done()}
        self._task = asyncio.current_task()

    def leave(self, client: Client) -> None:
        self.clients.discard(client)
        if not self.clients and self._task:
            self._task.cancel()


class Hub:
    """All clients of this worker, by match. It is the `EventSink` of the worker's source.

    Args:
        router: finds the match of an event.
        fetch_snapshot: runs the snapshot query for a match.
        read_range: reads events that the replay buffer has dropped: those after one id up to another, or None.
        queue_bytes: limit of a client's queue.
        replay_bytes: limit of the replay buffer.
        snapshot_pool: the most snapshot queries at once.
        snapshot_timeout: seconds that a query may take.
    """

    def __init__(
        self,
        router: Router,
        fetch_snapshot: FetchSnapshot,
        read_range: ReadRange,
        queue_bytes: int,
        replay_bytes: int,
        *,
        snapshot_pool: int,
        snapshot_timeout: float,
    ) -> None:
        self._router, self._read_range, self._queue_bytes = router, read_range, queue_bytes
        self._buffer = ReplayBuffer(replay_bytes)
        self.snapshots = SnapshotCache(fetch_snapshot, self._buffer, snapshot_pool, snapshot_timeout)
        self._matches: dict[str, dict[ClientKey, Client]] = {}
        self._crowds: dict[Client, _Crowd] = {}
        self._started = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.unroutable = UnroutableEvents(router)
        self._log = LogThrottle(logger)  # of what clients cause
        self.slow_closes = 0
        self.recovered = self.restarted = 0  # clients that reconnected: with what they missed, or with a snapshot

    def __len__(self) -> int:
        return sum(map(len, self._matches.values()))

    @property
    def queue_bytes(self) -> int:
        """The bytes that wait for all clients."""
        return sum(client.queue.bytes for clients in self._matches.values() for client in clients.values())

    def join(
        self, match: str, name: str, last: EventId | None = None, *, owner: str | None = None, address: str = ""
    ) -> Client:
        """Add a client. It starts with the events after `last`, or without it with a snapshot.

        If its owner has used the name in this match already, the older client is closed.
        """
        client = Client(match, name, self._queue_bytes, owner=owner, address=address)
        clients = self._matches.setdefault(match, {})
        if older := clients.get(client.key):
            older.close(CloseCode.REPLACED)
        clients[client.key] = client
        self._spawn(self._start_client(client, last, self._buffer.cursor))
        return client

    def leave(self, client: Client) -> None:
        """Remove a client, but not one that has replaced it."""
        client.close(CloseCode.DISCONNECTED)
        clients = self._matches.get(client.match, {})
        if clients.get(client.key) is client:
            del clients[client.key]
            if not clients:
                del self._matches[client.match]
        if crowd := self._crowds.pop(client, None):
            crowd.leave(client)

    def start(self, position: EventId | None, recent: Sequence[Event]) -> None:
        """Set the position and fill the replay buffer; clients that a timeout started before this start again."""
        oldest = recent[0].parsed_id if recent else None
        self._buffer.restart(EventId(oldest.epoch, oldest.sequence - 1) if oldest else position)
        for event in recent:
            self._record(event)
        self._advance(recent)
        self._started.set()
        self._resync_all("this worker has found its position")

    def deliver(self, events: Sequence[Event]) -> None:
        """Send events to every client of their matches."""
        by_match: dict[str, list[Update]] = {}
        for event in events:
            update = self._record(event)
            if update is None:
                self.unroutable.add(event)
            elif update.match in self._matches:
                by_match.setdefault(update.match, []).append(update)
        self._advance(events)
        for match, updates in by_match.items():
            batch = MessageBatch(updates)
            for client in self._matches[match].values():
                if not client.send(batch):
                    self.slow_closes += 1
                    self._log("slow", "client %r of match %r is too slow and is closed", client.name, match)
                    client.close(CloseCode.SLOW)

    def gap(self, position: EventId | None, why: str) -> None:
        """Announce a gap to every client, with one fresh snapshot for each match."""
        self._buffer.restart(position)
        self._resync_all(why)

    def _record(self, event: Event) -> Update | None:
        update = self._router.route(event)
        if update is not None:
            self._buffer.record(update)
        return update

    def _advance(self, events: Sequence[Event]) -> None:
        position = next((event.parsed_id for event in reversed(events) if event.id), None)
        if position is not None:
            self._buffer.position = position

    async def _start_client(self, client: Client, last: EventId | None, joined: Cursor) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(TAKEOVER_TIMEOUT_SECONDS):
                await self._started.wait()
        if client.closing.done():
            return  # nothing is read for a client that has left
        missed = None if last is None else await self._replay(client.match, last)
        if last is None or missed is None:
            self.restarted += last is not None
            await self._start_from_snapshot([client], joined, initial_load)
        else:
            self.recovered += 1
            client.start(recovered(client.match, last), missed, skip_until=last)
            await self._resync_unless_reached(client, last)

    async def _replay(self, match: str, last: EventId) -> list[Update] | None:
        """Return the match's events after `last`; None if some of them are not to be had."""
        position = self._buffer.position
        if position is None or last.epoch != position.epoch:
            return None  # there is a gap between two epochs
        if last >= position:
            return []  # the client received it from a worker that is ahead of this one
        buffered = self._buffer.after(match, last)
        return await self._read_back(match, last, position) if buffered is None else buffered

    async def _resync_unless_reached(self, client: Client, last: EventId) -> None:
        """Restart a client from a snapshot if this worker does not get as far as its `last` within a few seconds.

        Nobody may have seen that id: then the client would be sent nothing until the count gets there.
        """
        if self._is_ahead(client, last):
            await asyncio.sleep(_CATCH_UP_SECONDS)
            if self._is_ahead(client, last):
                self._log("ahead", "clients came with ids that are not reached within %g s: resync", _CATCH_UP_SECONDS)
                client.pause()
                await self._start_from_snapshot([client], self._buffer.cursor, resync)

    def _is_ahead(self, client: Client, last: EventId) -> bool:
        """Whether a client skips events until one that this worker has not received. A gap ends the skipping."""
        position = self._buffer.position
        return client.streaming and client.skip_until == last and (position is None or position < last)

    async def _read_back(self, match: str, last: EventId, position: EventId) -> list[Update] | None:
        """Return the match's events after `last`, read up to `position` and then buffered; None as in `_replay`."""
        before = self._buffer.cursor
        events = await self._read_range(last, position)
        meanwhile = self._buffer.since(match, before)
        if events is None or meanwhile is None:
            return None
        updates = [update for event in events if (update := self._router.route(event)) and update.match == match]
        # No other client shares these texts, so they are limited, unlike a snapshot.
        size = sum(len(update.text) for update in [*updates, *meanwhile])
        return [*updates, *meanwhile] if size <= self._queue_bytes else None

    async def _start_from_snapshot(self, clients: Sequence[Client], joined: Cursor, first: FirstMessage) -> None:
        """Start clients of one match with a snapshot and the events that may be missing in it.

        A gap while the query runs makes its snapshot useless: the events between the two can't be known.
        """
        match = clients[0].match
        for _ in range(_MAX_SNAPSHOTS):
            cached = await self._snapshot(match, clients)
            if cached is None:
                return
            start = self._replay_start(cached, joined)
            missed = self._buffer.since(match, start)
            if missed is not None:
                message = first(match, start.position, cached.snapshot.data, cached.snapshot.error)
                for client in clients:
                    client.start(message, missed)
                return
        self._log("snapshots", "match %r: there was a gap during each of %d snapshots", match, _MAX_SNAPSHOTS)
        for client in clients:
            client.close(CloseCode.SLOW)

    async def _snapshot(self, match: str, clients: Sequence[Client]) -> CachedSnapshot | None:
        """Return a snapshot for clients of one match; None if all of them have left.

        When the last one leaves while this waits, the task that calls this is cancelled.
        """
        crowd = _Crowd(clients)
        if not crowd.clients:
            return None
        self._crowds.update(dict.fromkeys(crowd.clients, crowd))
        try:
            return await self.snapshots.get(match, {client.address for client in crowd.clients})
        finally:
            for client in crowd.clients:
                del self._crowds[client]

    def _replay_start(self, cached: CachedSnapshot, joined: Cursor) -> Cursor:
        """Return where the events begin that follow a snapshot: at the earlier one of two places.

        One is the snapshot's: its query may not have seen an event after that. The other is where the client joined: no
        snapshot contains events that were published directly since then. It does not count if the buffer no longer
        contains it, for example after a gap: then the snapshot replaces everything before.
        """
        if self._buffer.contains(joined) and joined.serial <= cached.cursor.serial:
            return joined
        return cached.cursor

    def _resync_all(self, why: str) -> None:
        """Restart every streaming client from a snapshot. The others have not started yet, so they have no gap."""
        streaming = [[client for client in clients.values() if client.streaming] for clients in self._matches.values()]
        if count := sum(map(len, streaming)):
            logger.warning("%d clients start again from a snapshot: %s", count, why)
        for clients in filter(None, streaming):
            for client in clients:
                client.pause()
            self._spawn(self._start_from_snapshot(clients, self._buffer.cursor, resync))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = start_task(work, "a bug left clients without their first message")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Cancel the work that still runs for clients."""
        await cancel_tasks(self._tasks)
        await self.snapshots.aclose()
