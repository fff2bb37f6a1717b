"""How subscriptions start: with the events that their clients have missed, or with a snapshot."""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable, Sequence
from contextlib import suppress

import msgspec

from app.broadcast.client import Client, CloseCode
from app.broadcast.commit_order import in_commit_order
from app.broadcast.crowd import Crowd
from app.broadcast.delivery import shown
from app.broadcast.held_updates import HeldUpdates
from app.broadcast.load import Load
from app.broadcast.match_view import MatchView
from app.broadcast.messages import Message, MessageBatch, initial_load, resync, stale
from app.broadcast.missed_events import CATCH_UP_SECONDS, MissedEvents
from app.broadcast.replay_buffer import Cursor, ReplayBuffer
from app.broadcast.row_queries import RowQueries
from app.broadcast.snapshot_cache import CachedSnapshot, SnapshotCache
from app.broadcast.subscription import Subscription
from app.broadcast.update_queue import merged
from app.core.claims import ClaimNames
from app.core.log_throttle import LogThrottle
from app.core.tasks import cancel_tasks, start_task
from notifymux.event import EventId
from notifymux.progress_timeout import TAKEOVER_TIMEOUT_SECONDS

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 0.02  # between two looks whether an update that has to go first still waits for its query
_STALE_SECONDS = 0.5  # that clients may wait for a snapshot after a gap before they are told
_MAX_SNAPSHOTS = 3  # that are fetched for a subscription while gaps make each of them useless

Start = tuple[Subscription, EventId | None]  # and the last id that its client has; None: it has nothing


class InitialLoads:
    """Starts subscriptions. What happens until one starts is its load's; from then on, events are sent.

    Args:
        buffer: the last events.
        missed: finds what clients have missed.
        snapshots: fetches snapshots.
        snapshot_claims: the claims that they depend on.
        rows: runs the queries of updates; None where no channel has one.
        held: what is held back for clients; None without queries.
        tells_at_once: whether clients are told of a gap before anything else: where an update may be of several topics,
            it must not move a client's position in one that has a gap.
    """

    def __init__(
        self,
        buffer: ReplayBuffer,
        missed: MissedEvents,
        snapshots: SnapshotCache,
        *,
        snapshot_claims: ClaimNames,
        rows: RowQueries | None,
        held: HeldUpdates | None,
        tells_at_once: bool,
    ) -> None:
        self._buffer, self._missed, self._rows, self._held = buffer, missed, rows, held
        self._snapshots, self._snapshot_claims = snapshots, snapshot_claims
        self._tells_at_once = tells_at_once
        self._crowds: dict[Subscription, Crowd] = {}
        self._has_position = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = LogThrottle(logger)  # of what clients cause
        self.recovered = self.restarted = 0  # subscriptions that resumed: with what they missed, or with a snapshot

    def begin(self) -> None:
        """Let subscriptions start: this worker has found its position."""
        self._has_position.set()

    def start(self, starts: Sequence[Start]) -> None:
        """Start subscriptions of one client, all at one moment."""
        joined = self._buffer.cursor
        loads = [Load([subscription], last, joined, initial_load) for subscription, last in starts]
        self._spawn(self._start(loads), [starts[0][0].client])

    def resync(self, subscriptions: Iterable[Subscription]) -> None:
        """Restart subscriptions from a snapshot after a gap; those that share a view together, with one load."""
        views: dict[MatchView, list[Subscription]] = {}
        clients: dict[Client, list[Subscription]] = {}
        for each in subscriptions:
            each.pause()
            if each.client.has_one_position:
                clients.setdefault(each.client, []).append(each)
            else:
                views.setdefault(MatchView(each.topic, each.client.claims), []).append(each)
        at = self._buffer.cursor
        for group in views.values():
            loads = [Load(group, None, at, resync)]
            if self._tells_at_once:
                _tell_stale(loads)
            self._spawn(self._resync(loads), [each.client for each in group])
        for client, group in clients.items():
            self._spawn(self._resync([Load([each], None, at, resync) for each in group]), [client])

    def leave(self, subscription: Subscription) -> None:
        """Have nothing wait for a subscription that has ended."""
        if crowd := self._crowds.pop(subscription, None):
            crowd.leave(subscription)

    async def aclose(self) -> None:
        """Cancel the work that still runs."""
        await cancel_tasks(self._tasks)

    async def _start(self, loads: list[Load]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(TAKEOVER_TIMEOUT_SECONDS):
                await self._has_position.wait()
        loads = [load for load in loads if load.is_wanted]  # nothing is read for a client that has left
        await _gather([self._missed.fill(load) for load in loads])
        await self._complete(loads)
        for load in loads:
            if load.is_recovered and not load.client.has_one_position:
                await self._resync_unless_reached(load)

    async def _complete(self, loads: list[Load]) -> None:
        """Fetch snapshots for loads that have nothing yet, and start all at one moment at which nothing is missing.

        A gap meanwhile makes what was fetched useless: the events between the two can't be known.
        """
        for _ in range(_MAX_SNAPSHOTS + any(load.is_recovered for load in loads)):
            await _gather([self._fetch_snapshot(load) for load in loads])
            loads = [load for load in loads if load.first is not None and load.is_wanted]
            if not loads:
                return
            if await self._bring_up_to_date(loads):
                self._send(loads)
                return
        clients = {each.client for load in loads for each in load.subscriptions if each.is_open}
        if clients:
            self._log(
                "snapshots",
                "match %r: there was a gap during each of %d snapshots",
                str(loads[0].topic),
                _MAX_SNAPSHOTS,
            )
        for client in clients:
            client.close(CloseCode.SLOW)

    async def _resync_unless_reached(self, load: Load) -> None:
        """Restart a subscription from a snapshot if this worker does not get as far as its `last` within a few seconds.

        Nobody may have seen that id: then the client would be sent nothing until the count gets there.
        """
        if self._is_ahead(load):
            await asyncio.sleep(CATCH_UP_SECONDS)
            if self._is_ahead(load):
                self._log("ahead", "clients came with ids that are not reached within %g s: resync", CATCH_UP_SECONDS)
                self._pause(load.subscriptions)
                await self._complete([Load(load.subscriptions, None, self._buffer.cursor, resync)])

    def _is_ahead(self, load: Load) -> bool:
        """Whether a client skips events until one that this worker has not received. A gap ends the skipping."""
        [subscription] = load.subscriptions
        is_skipping = subscription.is_open and subscription.streaming and subscription.skip_until == load.last
        return is_skipping and load.last is not None and self._missed.is_before(load.last)

    # ---- snapshots

    async def _fetch_snapshot(self, load: Load) -> None:
        """Fill a load with a snapshot, unless it has something or all of its subscriptions have ended."""
        if load.first is not None:
            return
        view = MatchView(load.topic, self._snapshot_claims.of(load.claims))
        cached = await self._snapshot(view, load.subscriptions)
        if cached is None:
            return
        start = self._replay_start(cached, load.joined)
        first = load.build(load.topic, start.position, cached.snapshot.data, cached.snapshot.error)
        # The snapshot has what still waits for queries from before it.
        load.begin_at(start, first, start.position if self._rows else None)

    async def _snapshot(self, view: MatchView, subscriptions: Sequence[Subscription]) -> CachedSnapshot | None:
        """Return a snapshot for subscriptions that share a view; None if all of them have ended.

        When the last one ends while this waits, the task that calls this is cancelled.
        """
        crowd = Crowd(subscriptions)
        if not crowd.subscriptions:
            return None
        self._crowds.update(dict.fromkeys(crowd.subscriptions, crowd))
        try:
            return await self._snapshots.get(view, [each.client.address for each in crowd.subscriptions])
        finally:
            for each in crowd.subscriptions:
                del self._crowds[each]

    def _replay_start(self, cached: CachedSnapshot, joined: Cursor) -> Cursor:
        """Return where the events begin that follow a snapshot: at the earlier one of two places.

        One is the snapshot's: its query may not have seen an event after that. The other is where the client joined: no
        snapshot contains events that were published directly since then. It does not count if the buffer no longer
        contains it, for example after a gap: then the snapshot replaces everything before.
        """
        if self._buffer.contains(joined) and joined.serial <= cached.cursor.serial:
            return joined
        return cached.cursor

    async def _resync(self, loads: list[Load]) -> None:
        """Restart subscriptions from snapshots; tell their clients after a while that their state may be old."""
        late = asyncio.get_running_loop().call_later(_STALE_SECONDS, self._tell_late, loads)
        try:
            await self._complete(loads)
        finally:
            late.cancel()

    def _tell_late(self, loads: Sequence[Load]) -> None:
        if not self._tells_at_once or loads[0].client.has_one_position:
            _tell_stale(loads)

    # ---- the start

    async def _bring_up_to_date(self, loads: Sequence[Load]) -> bool:
        """Add what was received meanwhile, with the results of queries, until nothing is missing in any of the loads.

        Return False if some have to begin again because of a gap, or if nobody wants them any more: then no query
        begins.
        """
        while True:
            for load in loads:
                if not self._extend(load):
                    load.reset()
            if not all(load.first for load in loads) or not any(load.is_wanted for load in loads):
                return False
            if self._rows is None:
                return True
            lacking = [(load, self._rows.unfetched(load.topic, load.updates, load.claims)) for load in loads]
            lacking = [(load, updates) for load, updates in lacking if updates]
            for load, updates in lacking:
                await self._rows.fetch(updates, load.claims)
            if not lacking:
                if not self._is_waiting_before(_mark(loads), loads):
                    return True
                await asyncio.sleep(_WAIT_SECONDS)

    def _extend(self, load: Load) -> bool:
        """Add the events that were received since the load's cursor; return False if they are not to be had."""
        meanwhile = self._buffer.since(load.topic, load.cursor)
        if meanwhile is None:
            return False
        load.updates, load.cursor = [*load.updates, *meanwhile], self._buffer.cursor
        if self._rows:
            load.updates = merged(load.updates, load.claims)
        return True

    def _is_waiting_before(self, mark: EventId | None, loads: Sequence[Load]) -> bool:
        """Whether an update up to a mark waits for its query. Then no id that follows could stand for all topics."""
        return bool(mark and self._rows and self._rows.has_waiting_until(mark, [load.topic for load in loads]))

    def _send(self, loads: Sequence[Load]) -> None:
        """Start all loads now."""
        loads = [load for load in loads if load.is_wanted]
        self.recovered += sum(load.is_recovered for load in loads)
        self.restarted += sum(load.last is not None and not load.is_recovered for load in loads)
        for load in loads:
            if self._rows:
                load.updates = self._rows.without_waiting(load.topic, load.updates)
            skip_until = load.skip_until if self._may_have_to_skip(load) else None
            for each in load.open_subscriptions:
                each.start(skip_until)
        if len(loads) == 1:
            self._send_one(loads[0])
        else:
            self._send_together(loads)

    def _may_have_to_skip(self, load: Load) -> bool:
        """Whether anything may still come that the clients have: of a worker that is behind, or that waits."""
        is_behind = load.skip_until is not None and self._missed.is_before(load.skip_until)
        return is_behind or (self._rows is not None and self._rows.is_waiting(load.topic))

    def _send_one(self, load: Load) -> None:
        messages = shown(load.updates, load.claims)
        for each in load.open_subscriptions:
            client = each.client
            if self._held and len(client.subscriptions) > 1:
                passed = shown(self._held.pass_on(client, load.updates), load.claims)
                client.send_unbounded([_first(load), *passed])
            else:
                client.send_unbounded([_first(load), *messages])

    def _send_together(self, loads: Sequence[Load]) -> None:
        """Start the loads of one client, which has one position for all of them.

        An id that it remembers has to stand for its place in every topic. So the first messages go out without one but
        the last, which has the lowest place of all. While the client has more than that of some topic, ids are left out
        too: it would be sent again what it has.
        """
        client, mark = loads[0].client, _mark(loads)
        positions = [load.position for load in loads]
        known = [position for position in positions if position is not None]
        lowest = min(known) if len(known) == len(positions) else None
        firsts = [msgspec.structs.replace(_first(load), event_id=None) for load in loads]
        if lowest is None or mark is None or lowest >= mark:
            firsts[-1] = msgspec.structs.replace(firsts[-1], event_id=str(lowest) if lowest else "")
        updates = in_commit_order(load.updates for load in loads)
        passed = self._held.pass_on(client, updates) if self._held else updates
        messages = [
            Message(message.text) if mark and update.parsed_id and update.parsed_id < mark else message
            for update, message in zip(passed, shown(passed, client.claims), strict=True)
        ]
        client.send_unbounded([*firsts, *messages])

    def _pause(self, subscriptions: Collection[Subscription]) -> None:
        for each in subscriptions:
            each.pause()
            if self._held:
                self._held.forget(each)

    def _spawn(self, work: Coroutine[None, None, None], clients: Sequence[Client]) -> None:
        """Start work for clients. A bug in it closes them, so that they come back: else they would wait for ever."""
        task = start_task(work, "a bug left clients without their first message")
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception():
                for client in clients:
                    client.close(CloseCode.BUG)

        task.add_done_callback(end)


async def _gather(work: Sequence[Coroutine[None, None, None]]) -> None:
    """Do all of it at once. What is cancelled, because nobody waits for it any more, ends alone."""
    if len(work) == 1:
        await work[0]
        return
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)


def _mark(loads: Sequence[Load]) -> EventId | None:
    """Return the highest id up to which a client with one position has already heard one of several topics."""
    if len(loads) == 1:
        return None
    return max((load.last for load in loads if load.is_recovered and load.last), default=None)


def _first(load: Load) -> Message:
    if load.first is None:
        raise ValueError("the load has nothing to begin with")
    return load.first


def _tell_stale(loads: Sequence[Load]) -> None:
    for load in loads:
        batch = MessageBatch([stale(load.topic)])
        for each in load.open_subscriptions:
            each.client.send(batch)
