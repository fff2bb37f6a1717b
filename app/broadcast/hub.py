"""The fan-out: each event to the clients of its topics. Nothing here waits for a client."""

import logging
from collections.abc import Collection, Sequence

from app.broadcast.client import Client, ClientKey, CloseCode
from app.broadcast.delivery import Delivery
from app.broadcast.held_updates import HeldUpdates
from app.broadcast.initial_loads import InitialLoads, Start
from app.broadcast.messages import Update
from app.broadcast.missed_events import MissedEvents, ReadRange
from app.broadcast.replay_buffer import ReplayBuffer
from app.broadcast.room import Room
from app.broadcast.router import Router
from app.broadcast.row_queries import RowQueries, RunQuery
from app.broadcast.snapshot_cache import FetchSnapshot, SnapshotCache
from app.broadcast.subscription import Subscription
from app.broadcast.topic import Topic
from app.broadcast.unroutable import UnroutableEvents
from app.core.claims import NO_CLAIMS
from app.core.log_throttle import LogThrottle
from app.core.query_files import NO_QUERIES, Queries, claim_names
from notifymux.event import Event, EventId

logger = logging.getLogger(__name__)


class Hub:
    """All clients of this worker, and their topics. It is the `EventSink` of the worker's source.

    Args:
        router: finds the topics of an event.
        fetch_snapshot: runs the snapshot query for a view of a match or another topic.
        read_range: reads events that the replay buffer has dropped, as `MissedEvents` says.
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
        self._router, self._queue_bytes = router, queue_bytes
        self._buffer = ReplayBuffer(replay_bytes)
        self._claims = queries.claims
        self.snapshots = SnapshotCache(fetch_snapshot, self._buffer, snapshot_pool, snapshot_timeout)
        self.rows = self._row_queries(fetch_row, row_timeout) if fetch_row else None
        self._held = HeldUpdates(self.rows, queue_bytes) if self.rows else None
        self._clients: dict[ClientKey, Client] = {}
        self._rooms: dict[Topic, Room] = {}  # none is empty
        self._delivery = Delivery(self._rooms, self._held, self._close_slow)
        self.initial_loads = InitialLoads(
            self._buffer,
            MissedEvents(router, self._buffer, read_range, self.rows, queue_bytes),
            self.snapshots,
            snapshot_claims=claim_names(queries.snapshots.values()),
            rows=self.rows,
            held=self._held,
            tells_at_once=len(router.keys) > 1,
        )
        self.unroutable = UnroutableEvents(router)
        self._log = LogThrottle(logger)  # of what clients cause
        self.slow_closes = 0

    def __len__(self) -> int:
        return len(self._clients)

    def _row_queries(self, run: RunQuery, timeout: float) -> RowQueries:
        def abandon(topic: Topic) -> None:
            for subscription in self._rooms[topic]:
                subscription.client.close(CloseCode.BUG)

        def groups(topic: Topic) -> Collection[str]:
            return self._rooms[topic].groups

        def deliver(topic: Topic, updates: Sequence[Update]) -> None:
            self._delivery.send({topic: updates})

        return RowQueries(run, deliver, groups, self._buffer.resize, abandon, timeout=timeout)

    @property
    def clients(self) -> list[Client]:
        """All clients, those that connected first before the others."""
        return list(self._clients.values())

    @property
    def queue_bytes(self) -> int:
        """The bytes that wait for all clients."""
        return sum(client.queue.bytes for client in self._clients.values())

    # ---- clients

    def connect(
        self,
        name: str,
        *,
        scope: str | None = None,
        owner: str | None = None,
        address: str = "",
        claims: str = NO_CLAIMS,
        has_one_position: bool = False,
    ) -> Client:
        """Add a client without a match. If its owner has used the name in this scope, the older client is closed.

        The arguments are those of `Client`, but `claims` are all of its token's.
        """
        client = Client(
            name,
            self._queue_bytes,
            scope=scope,
            owner=owner,
            address=address,
            claims=self._claims.of(claims),
            has_one_position=has_one_position,
        )
        self._add(client)
        return client

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
        """Add a client of one match, as `connect` and `subscribe` do."""
        client = self.connect(name, scope=match, owner=owner, address=address, claims=claims)
        self.subscribe(client, match, last)
        return client

    def subscribe(self, client: Client, topic: Topic, last: EventId | None = None) -> None:
        """Have a client hear a topic: from the events after `last` on, or without it from a snapshot on.

        If it hears the topic already, it starts again.
        """
        self.subscribe_all(client, [(topic, last)])

    def subscribe_all(self, client: Client, starts: Sequence[tuple[Topic, EventId | None]]) -> None:
        """Have a client hear several topics, all from one moment on; otherwise as `subscribe`."""
        if starts and not client.closing.done():
            self.initial_loads.start([self._add_subscription(client, topic, last) for topic, last in starts])

    def unsubscribe(self, client: Client, topic: Topic) -> bool:
        """Have a client hear nothing more of a topic; return whether it heard it."""
        subscription = client.subscriptions.get(topic)
        if subscription is None:
            return False
        self._remove(subscription)
        self._delivery.release(client)
        return True

    def renew(self, client: Client, owner: str | None, claims: str) -> bool:
        """Give a client another token's owner and claims, all of them. Return whether it is shown something else now.

        Then all of its subscriptions have ended, so that they can begin again.
        """
        if self._clients.get(client.key) is client:
            del self._clients[client.key]
            client.owner = owner
            self._add(client)
        shown = self._claims.of(claims)
        if shown == client.claims:
            return False
        for subscription in list(client.subscriptions.values()):
            self._remove(subscription)
        client.claims = shown
        return True

    def leave(self, client: Client) -> None:
        """Remove a client, but not one that has replaced it."""
        client.close(CloseCode.DISCONNECTED)
        if self._clients.get(client.key) is client:
            del self._clients[client.key]
        for subscription in list(client.subscriptions.values()):
            self._remove(subscription)

    def _add(self, client: Client) -> None:
        older = self._clients.get(client.key)
        if older:
            older.close(CloseCode.REPLACED)
            self.leave(older)
        self._clients[client.key] = client

    def _add_subscription(self, client: Client, topic: Topic, last: EventId | None) -> Start:
        if older := client.subscriptions.get(topic):
            self._remove(older)
        room = self._rooms.get(topic)
        if room is None:
            room = self._rooms[topic] = Room(topic)
        subscription = Subscription(client, room.topic)
        client.subscriptions[room.topic] = subscription
        client.hears = None
        room.add(subscription)
        return subscription, last

    def _remove(self, subscription: Subscription) -> None:
        client, topic = subscription.client, subscription.topic
        subscription.pause()
        del client.subscriptions[topic]
        room = self._rooms[topic]
        room.remove(subscription)
        if not room:
            del self._rooms[topic]
            if self.rows:
                self.rows.drop(topic)
        self.initial_loads.leave(subscription)
        if self._held:
            self._held.forget(subscription)

    def _close_slow(self, client: Client) -> None:
        self.slow_closes += 1
        topics = ", ".join(map(str, list(client.subscriptions)[:3]))
        self._log("slow", "client %r of match %s is too slow and is closed", client.name, topics)
        client.close(CloseCode.SLOW)

    # ---- events

    def start(self, position: EventId | None, recent: Sequence[Event]) -> None:
        """Set the position and fill the replay buffer; clients that a timeout started before this start again."""
        oldest = recent[0].parsed_id if recent else None
        self._buffer.restart(EventId(oldest.epoch, oldest.sequence - 1) if oldest else position)
        self._drop_waiting()
        for event in recent:
            self._record(event)
        self._advance(recent)
        self.initial_loads.begin()
        self._resync_all("this worker has found its position")

    def deliver(self, events: Sequence[Event]) -> None:
        """Send events to every client of their topics."""
        by_topic: dict[Topic, list[Update]] = {}
        for event in events:
            update = self._record(event)
            if update is None:
                self.unroutable.add(event)
                continue
            for topic in update.topics:
                if topic in self._rooms:
                    by_topic.setdefault(topic, []).append(update)
        self._advance(events)
        if self.rows:
            self._delivery.send({topic: self.rows.put(topic, updates) for topic, updates in by_topic.items()})
        else:
            self._delivery.send(by_topic)

    def gap(self, position: EventId | None, why: str) -> None:
        """Announce a gap to every client, with one fresh snapshot for each topic."""
        self._buffer.restart(position)
        self._drop_waiting()
        self._resync_all(why)

    def _drop_waiting(self) -> None:
        if self.rows:
            self.rows.clear()
        if self._held:
            self._held.clear()

    def _record(self, event: Event) -> Update | None:
        update = self._router.route(event)
        if update is not None:
            self._buffer.record(update)
        return update

    def _advance(self, events: Sequence[Event]) -> None:
        for event in reversed(events):
            if event.id:
                self._buffer.position = event.parsed_id
                break

    def _resync_all(self, why: str) -> None:
        """Restart every streaming subscription from a snapshot. The others have not started, so they have no gap."""
        streaming = [each for room in self._rooms.values() for each in room if each.streaming]
        if streaming:
            count = len({each.client for each in streaming})
            logger.warning("%d clients start again from a snapshot: %s", count, why)
        self.initial_loads.resync(streaming)

    async def aclose(self) -> None:
        """Cancel the work that still runs for clients."""
        await self.initial_loads.aclose()
        await self.snapshots.aclose()
        if self.rows:
            await self.rows.aclose()
