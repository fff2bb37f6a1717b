"""The fan-out: routes each event to the clients of its match. Nothing here waits for a client."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

from app.core.event import Event, EventId
from app.messages import Router, initial_load, resync, update
from app.outbox import Outbox
from app.snapshots import Snapshot

logger = logging.getLogger(__name__)

SLOW, REPLACED, SILENT = 3008, 3510, 3012
_REASONS = {
    SLOW: "too slow: reconnect with last_event_id",
    REPLACED: "this client id connected again",
    SILENT: "no answer to pings",
}

TakeSnapshot = Callable[[str], Awaitable[Snapshot]]


class Client:
    """One socket's place in the hub."""

    def __init__(self, match: str, name: str, queue_bytes: int) -> None:
        self.match, self.name = match, name
        self.outbox = Outbox(queue_bytes)
        self.closing: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def close(self, code: int) -> None:
        """Has the socket closed, with `code`."""
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
        queue_bytes: bound of a client's queue.
    """

    def __init__(self, router: Router, take_snapshot: TakeSnapshot, queue_bytes: int) -> None:
        self._router, self._take_snapshot, self._queue_bytes = router, take_snapshot, queue_bytes
        self._matches: dict[str, dict[str, Client]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.slow_closes = 0

    def __len__(self) -> int:
        return sum(map(len, self._matches.values()))

    def join(self, match: str, name: str, position: EventId | None) -> Client:
        """Adds a client; it hears every event after `position`, which its initial load is taken after.

        A name that is in use in this match belongs to the newest: the older client is closed.
        """
        client = Client(match, name, self._queue_bytes)
        clients = self._matches.setdefault(match, {})
        if older := clients.get(name):
            older.close(REPLACED)
        clients[name] = client
        slot = client.outbox.reserve()

        async def load() -> None:
            snapshot = await self._take_snapshot(match)
            client.outbox.fill(slot, initial_load(match, position, snapshot.data, snapshot.error))

        self._spawn(load())
        return client

    def leave(self, client: Client) -> None:
        """Removes this client, and not one that took over its name."""
        clients = self._matches.get(client.match, {})
        if clients.get(client.name) is client:
            del clients[client.name]
            if not clients:
                del self._matches[client.match]

    def deliver(self, event: Event) -> None:
        """Queues an event for every client of its match."""
        routed = self._router.route(event)
        clients = self._matches.get(routed.match) if routed else None
        if routed and clients:
            text = update(event, routed)
            for client in clients.values():
                if not client.outbox.put(text):
                    self._close_slow(client)

    def gap(self, position: EventId | None, why: str) -> None:
        """Tells every client that continuity was broken, each match with one fresh snapshot."""
        if self._matches:
            logger.warning("%d clients start again from a snapshot: %s", len(self), why)
        for match, clients in self._matches.items():
            self._resync(match, list(clients.values()), position)

    def _resync(self, match: str, clients: list[Client], position: EventId | None) -> None:
        slots = [(client, client.outbox.reserve()) for client in clients]

        async def load() -> None:
            snapshot = await self._take_snapshot(match)
            text = resync(match, position, snapshot.data, snapshot.error)
            for client, slot in slots:
                client.outbox.fill(slot, text)

        self._spawn(load())

    def _close_slow(self, client: Client) -> None:
        if not client.closing.done():
            self.slow_closes += 1
            logger.warning("client %r of match %r is too slow and is closed", client.name, client.match)
        client.close(SLOW)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Ends what still runs for clients."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
