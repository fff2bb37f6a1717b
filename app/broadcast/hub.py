"""The fan-out: each event to the clients of its match. Nothing here waits for a client."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress

from app.broadcast.client import Client, CloseCode
from app.broadcast.crowd import Crowd
from app.broadcast.match_view import MatchView
from app.broadcast.messages import Message, MessageBatch, Update, initial_load, recovered, resync, stale
from app.broadcast.replay_buffer import Cursor, ReplayBuffer
from app.broadcast.room import Room
from app.broadcast.router import Router
from app.broadcast.row_queries import RowQueries, RunQuery
from app.broadcast.snapshot_cache import CachedSnapshot, FetchSnapshot, SnapshotCache
from app.broadcast.unroutable import UnroutableEvents
from app.broadcast.update_queue import merged
from app.core.claims import NO_CLAIMS, NO_NAMES
from app.core.log_throttle import LogThrottle
from app.core.query_files import NO_QUERIES, Queries
from app.core.tasks import cancel_tasks, start_task
from notifymux.event import Event, EventId
from notifymux.progress_timeout import TAKEOVER_TIMEOUT_SECONDS

logger = logging.getLogger(__name__)

_CATCH_UP_SECONDS = 3.0  # that a worker may be behind another from which a client comes
_STALE_SECONDS = 0.5  # that clients may wait for a snapshot after a gap before they are told
_MAX_RESUME_QUERIES = 50  # for a client that resumes; one that needs more starts from a snapshot
_MAX_SNAPSHOTS = 3  # that are fetched for a client while gaps make each of them useless

ReadRange = Callable[[EventId, EventId], Awaitable[list[Event] | None]]
BuildMessage = Callable[[str, EventId | None, bytes, str | None], Message]


class Hub:
    """All clients of this worker, by match. It is the `EventSink` of the worker's source.

    Args:
        router: finds the match of an event.
        fetch_snapshot: runs the snapshot query for a view of a match.
        read_range: reads events that the replay buffer has dropped: those after one id up to another, or None.
        queue_bytes: limit of a client's queue.
        replay_bytes: limit of the replay buffer.
        snapshot_pool: the most snapshot queries at once.
        snapshot_timeout: seconds that a query may take.
        queries: what clients are shown.
        fetch_row: runs the query of an update; None where no channel has one.
        row_timeout: seconds that an update waits for queries.
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
        queries: Queries = NO_QUERIES,
        fetch_row: RunQuery | None = None,
        row_timeout: float = 1.0,
    ) -> None:
        self._router, self._read_range, self._queue_bytes = router, read_range, queue_bytes
        self._buffer = ReplayBuffer(replay_bytes)
        self._claims = queries.claims
        self._snapshot_claims = queries.snapshot.claims if queries.snapshot else NO_NAMES
        self.snapshots = SnapshotCache(fetch_snapshot, self._buffer, snapshot_pool, snapshot_timeout)
        self.rows = self._row_queries(fetch_row, row_timeout) if fetch_row else None
        self._rooms: dict[str, Room] = {}  # by match
        self._crowds: dict[Client, Crowd] = {}
        self._started = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.unroutable = UnroutableEvents(router)
        self._log = LogThrottle(logger)  # of what clients cause
        self.slow_closes = 0
        self.recovered = self.restarted = 0  # clients that reconnected: with what they missed, or with a snapshot

    def __len__(self) -> int:
        return sum(map(len, self._rooms.values()))

    def _row_queries(self, run: RunQuery, timeout: float) -> RowQueries:
        def abandon(match: str) -> None:
            _close_after_bug(self._rooms[match].clients)

        def groups(match: str) -> Collection[str]:
            return self._rooms[match].groups

        return RowQueries(run, self._send, groups, self._buffer.resize, abandon, timeout=timeout)

    @property
    def queue_bytes(self) -> int:
        """The bytes that wait for all clients."""
        return sum(client.queue.bytes for room in self._rooms.values() for client in room.clients)

    def join(
        self,
        match: str,
        name: str,
        last: EventId | None = None,
        *,
        owner: str | None = None,
        address: str = "",
        claims: str = NO_CLAIMS,
    ) -> Client:
        """Add a client. It starts with the events after `last`, or without it with a snapshot.

        If its owner has used the name in this match already, the older client is closed. `claims` are all of its
        token's, as `app.core.claims` makes them.
        """
        shown = self._claims.of(claims)
        client = Client(match, name, self._queue_bytes, owner=owner, address=address, claims=shown)
        if older := self._rooms.setdefault(match, Room()).add(client):
            older.close(CloseCode.REPLACED)
        self._spawn(self._start_client(client, last, self._buffer.cursor), [client])
        return client

    def leave(self, client: Client) -> None:
        """Remove a client, but not one that has replaced it."""
        client.close(CloseCode.DISCONNECTED)
        if room := self._rooms.get(client.match):
            room.remove(client)
            if not room:
                del self._rooms[client.match]
                if self.rows:
                    self.rows.drop(client.match)
        if crowd := self._crowds.pop(client, None):
            crowd.leave(client)

    def start(self, position: EventId | None, recent: Sequence[Event]) -> None:
        """Set the position and fill the replay buffer; clients that a timeout started before this start again."""
        oldest = recent[0].parsed_id if recent else None
        self._buffer.restart(EventId(oldest.epoch, oldest.sequence - 1) if oldest else position)
        self._drop_waiting()
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
            elif update.match in self._rooms:
                by_match.setdefault(update.match, []).append(update)
        self._advance(events)
        send = self.rows.put if self.rows else self._send
        for match, updates in by_match.items():
            send(match, updates)

    def _send(self, match: str, updates: Sequence[Update]) -> None:
        for claims, clients in self._rooms[match].groups.items():
            batch = MessageBatch(_shown(updates, claims) if self.rows else updates)
            for client in clients:
                if not client.send(batch):
                    self.slow_closes += 1
                    self._log("slow", "client %r of match %r is too slow and is closed", client.name, match)
                    client.close(CloseCode.SLOW)

    def gap(self, position: EventId | None, why: str) -> None:
        """Announce a gap to every client, with one fresh snapshot for each match."""
        self._buffer.restart(position)
        self._drop_waiting()
        self._resync_all(why)

    def _drop_waiting(self) -> None:
        if self.rows:
            self.rows.clear()

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
        missed = None if last is None else await self._missed(client, last)
        if last is None or missed is None:
            self.restarted += last is not None
            await self._start_from_snapshot([client], joined, initial_load)
        else:
            self.recovered += 1
            client.start(recovered(client.match, last), _shown(missed, client.claims), skip_until=last)
            await self._resync_unless_reached(client, last)

    async def _missed(self, client: Client, last: EventId) -> list[Update] | None:
        """Return the events after `last` for a client, with the results of their queries; None as in `_replay`."""
        updates = await self._replay(client.match, last)
        if updates and self.rows:
            asked = merged(updates, client.claims)
            if len(self.rows.unfetched(client.match, asked, client.claims)) > _MAX_RESUME_QUERIES:
                return None
        return await self._with_rows(updates, [client])

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
        # No other client shares these payloads, so they are limited, unlike a snapshot.
        size = sum(update.size for update in [*updates, *meanwhile])
        return [*updates, *meanwhile] if size <= self._queue_bytes else None

    async def _with_rows(self, updates: list[Update] | None, clients: Sequence[Client]) -> list[Update] | None:
        """Return the updates with the results of their queries, those that arrive meanwhile included.

        None if there are none, if there is a gap meanwhile, or if all clients have left: then no query begins.

        Args:
            updates: in order.
            clients: of one match, with the same claims.
        """
        if updates is None or self.rows is None:
            return updates
        match, claims = clients[0].match, clients[0].claims
        updates = merged(updates, claims)
        while unfetched := self.rows.unfetched(match, updates, claims):
            if all(client.closing.done() for client in clients):
                return None
            before = self._buffer.cursor
            await self.rows.fetch(unfetched, claims)
            meanwhile = self._buffer.since(match, before)
            if meanwhile is None:
                return None
            updates += meanwhile
        return self.rows.without_waiting(match, updates)

    async def _start_from_snapshot(self, clients: Sequence[Client], joined: Cursor, first: BuildMessage) -> None:
        """Start clients of one match, with the same claims, with a snapshot and the events that may be missing in it.

        A gap while the query runs makes its snapshot useless: the events between the two can't be known.
        """
        match, claims = clients[0].match, clients[0].claims
        for _ in range(_MAX_SNAPSHOTS):
            cached = await self._snapshot(MatchView(match, self._snapshot_claims.of(claims)), clients)
            if cached is None:
                return
            start = self._replay_start(cached, joined)
            missed = await self._with_rows(self._buffer.since(match, start), clients)
            if missed is not None:
                shown = _shown(missed, claims)
                message = first(match, start.position, cached.snapshot.data, cached.snapshot.error)
                # The snapshot has what still waits for queries from before it.
                skip_until = start.position if self.rows else None
                for client in clients:
                    client.start(message, shown, skip_until)
                return
        self._log("snapshots", "match %r: there was a gap during each of %d snapshots", match, _MAX_SNAPSHOTS)
        for client in clients:
            client.close(CloseCode.SLOW)

    async def _snapshot(self, view: MatchView, clients: Sequence[Client]) -> CachedSnapshot | None:
        """Return a snapshot for clients that share a view; None if all of them have left.

        When the last one leaves while this waits, the task that calls this is cancelled.
        """
        crowd = Crowd(clients)
        if not crowd.clients:
            return None
        self._crowds.update(dict.fromkeys(crowd.clients, crowd))
        try:
            return await self.snapshots.get(view, [client.address for client in crowd.clients])
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
        groups = [clients for room in self._rooms.values() for clients in room.groups.values()]
        streaming = [[client for client in clients if client.streaming] for clients in groups]
        if count := sum(map(len, streaming)):
            logger.warning("%d clients start again from a snapshot: %s", count, why)
        for clients in filter(None, streaming):
            for client in clients:
                client.pause()
            self._spawn(self._resync(clients, self._buffer.cursor), clients)

    async def _resync(self, clients: Sequence[Client], at: Cursor) -> None:
        """Restart clients that share a view from a snapshot; tell them after a while that their state may be old."""
        late = asyncio.get_running_loop().call_later(
            _STALE_SECONDS, _tell, clients, MessageBatch([stale(clients[0].match)])
        )
        try:
            await self._start_from_snapshot(clients, at, resync)
        finally:
            late.cancel()

    def _spawn(self, work: Coroutine[None, None, None], clients: Sequence[Client]) -> None:
        """Start work for clients. A bug in it closes them, so that they come back: else they would wait for ever."""
        task = start_task(work, "a bug left clients without their first message")
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception():
                _close_after_bug(clients)

        task.add_done_callback(end)

    async def aclose(self) -> None:
        """Cancel the work that still runs for clients."""
        await cancel_tasks(self._tasks)
        await self.snapshots.aclose()
        if self.rows:
            await self.rows.aclose()


def _close_after_bug(clients: Iterable[Client]) -> None:
    for client in clients:
        client.close(CloseCode.BUG)


def _shown(updates: Sequence[Update], claims: str) -> list[Message]:
    """Return the messages of updates that have the results of their queries, for clients with these claims."""
    return [update.shown_to(claims) for update in updates]


def _tell(clients: Sequence[Client], batch: MessageBatch) -> None:
    for client in clients:
        client.send_control(batch)
