"""A simulation around real hubs: a database that counts events, a stream, workers that lag, viewers that reconnect.

Everything happens in the order of a schedule; the loop only runs what is ready.
"""

import asyncio
import copy
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from app.broadcast.client import Client
from app.broadcast.hub import Hub
from app.broadcast.match_view import MatchView
from app.broadcast.query_pool import QueryResult
from app.broadcast.router import Router
from notifymux.event import MUX_CHANNEL, Event, EventId
from notifymux.stream_reader import Take
from tests.support.loops import run_ready_tasks

MATCHES = ("1", "two")
CLOCK, PLAYS = "gameclock_change", "football_event_change"
STREAM_EVENTS = 40  # that the stream holds
QUEUE_BYTES, REPLAY_BYTES = 3_000, 6_000  # five events fill half a queue, and eight a replay buffer

State = dict[str, Any]  # {"plays": [n, …], "clocks": {row: n}}


def nothing() -> State:
    return {"plays": [], "clocks": {}}


def apply(state: State, message: dict[str, Any]) -> None:
    if message["channel"] == CLOCK:
        state["clocks"][str(message["data"]["id"])] = message["data"]["n"]
    else:
        state["plays"].append(message["data"]["n"])


class Database:
    """The state of every match, and all notifications with their ids."""

    def __init__(self, *, numbered: bool) -> None:
        self.numbered = numbered
        self.matches: dict[str, State] = defaultdict(nothing)
        self.log: list[Event] = []  # every notification; an epoch's start is an event on the listeners' own channel
        self.last = EventId(1000, 0)
        self._count = 0

    def write(self, match: str, channel: str, row: int, *, received: bool = True) -> None:
        """Change a row; `received` says whether any listener was alive."""
        self._count += 1
        payload = {"match_id": match, "operation": "UPDATE", "data": {"id": row, "n": self._count, "pad": "." * 150}}
        message = {"channel": channel, "data": payload["data"]}
        apply(self.matches[match], message)
        if received:
            self._notify(channel, payload)

    def canary(self) -> None:
        self._notify(MUX_CHANNEL, {"canary": 1})

    def start_epoch(self) -> None:
        self.last = EventId(self.last.epoch + 7, 0)
        self._notify(MUX_CHANNEL, {"begin": self.last.epoch})

    def state(self, match: str) -> State:
        return copy.deepcopy(self.matches[match])

    def read_range(self, after: EventId, until: EventId) -> list[Event] | None:
        """Return these events from the stream's last entries; None if some are not there."""
        kept = {event.parsed_id: event for event in self.log[-STREAM_EVENTS:]}
        wanted = [EventId(after.epoch, sequence) for sequence in range(after.sequence + 1, until.sequence + 1)]
        return [kept[event_id] for event_id in wanted] if all(event_id in kept for event_id in wanted) else None

    def _notify(self, channel: str, payload: object) -> None:
        self.last = EventId(self.last.epoch, self.last.sequence + 1)
        number = str(self.last) if self.numbered else None
        self.log.append(Event(channel, msgspec.Raw(json.dumps(payload).encode()), number))


class Worker:
    """A hub, the position of its source, and the answers that it waits for."""

    def __init__(self, database: Database, recent_events: int) -> None:
        self._database = database
        self._received = len(database.log)
        self.pending: list[Callable[[], None]] = []  # answers of PostgreSQL and Redis, in any order
        self.fails = False
        self.range_reads = 0  # that found everything
        self.hub = Hub(
            Router("match_id", [CLOCK]),
            self._fetch_snapshot,
            self._read_range,
            QUEUE_BYTES,
            REPLAY_BYTES,
            snapshot_pool=100,
            snapshot_timeout=5.0,
        )
        recent = self._same_epoch(database.log[-recent_events:]) if recent_events and database.numbered else []
        self.hub.start(database.last if database.numbered else None, recent)

    @staticmethod
    def _same_epoch(events: list[Event]) -> list[Event]:
        return [event for event in events if epoch(event) == epoch(events[-1])]

    def receive(self, count: int) -> None:
        """Deliver the next notifications as a source does."""
        batch: list[Event] = []
        for event in self._database.log[self._received : self._received + count]:
            self._received += 1
            if event.channel == MUX_CHANNEL and b"begin" in bytes(event.payload):
                self.hub.deliver(batch)
                batch = []
                self.hub.gap(event.parsed_id, "a new epoch")
            else:
                batch.append(event)
        self.hub.deliver(batch)

    def lose_position(self) -> None:
        """Miss all events so far: its session was replaced, or the stream was trimmed before it was read."""
        self._received = len(self._database.log)
        self.hub.gap(self._database.last if self._database.numbered else None, "lost")

    def receive_direct(self, match: str, number: int) -> None:
        """Deliver an event that was published directly, without an id."""
        payload = {"match_id": match, "data": {"n": number}}
        self.hub.deliver([Event("direct", msgspec.Raw(json.dumps(payload).encode()))])

    async def _answer(self, ask: Callable[[], Any], *, early: bool) -> Any:
        """Call `ask` now, if `early`, or else when the schedule has the answer come; return its result then."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asked = ask() if early else None
        self.pending.append(lambda: None if future.done() else future.set_result(asked if early else ask()))
        return await future

    def _fetch_snapshot(self, view: MatchView) -> Awaitable[QueryResult]:
        if self.fails:
            return self._answer(lambda: QueryResult(b"null", "no"), early=True)
        early = len(self.pending) % 2 == 0
        return self._answer(
            lambda: QueryResult(json.dumps(self._database.state(str(view.match))).encode()), early=early
        )

    async def _read_range(self, after: EventId, until: EventId, take: Take) -> bool:
        events: list[Event] | None = await self._answer(partial(self._database.read_range, after, until), early=False)
        self.range_reads += events is not None
        return events is not None and all(take([event]) for event in events)


class Viewer:
    """A client that applies messages as docs/protocol.md describes, and checks them."""

    def __init__(self, database: Database, match: str) -> None:
        self._database, self.match = database, match
        self.state, self.last = nothing(), None
        self.loads: list[bool] = []
        self._asked: str | None = None
        self._worker: Worker | None = None
        self._client: Client | None = None
        self._direct: set[int] = set()

    @property
    def connected(self) -> bool:
        return self._client is not None

    def connect(self, worker: Worker) -> None:
        self._worker, self._asked = worker, self.last
        self._client = worker.hub.join(self.match, str(id(self)), EventId.parse(self.last) if self.last else None)
        self._direct.clear()

    def disconnect(self) -> None:
        if self._client and self._worker:
            self._worker.hub.leave(self._client)
        self._client = self._worker = None

    async def read(self, most: int | None = None) -> None:
        """Receive what is queued; with `most`, only so many messages before the connection is lost."""
        if self._client is None:
            return
        messages = self._client.queue.drain()
        for message in messages[:most]:
            self._on_message(json.loads(message.text))
        if most is not None and most < len(messages):
            self.disconnect()
            return
        if self._client.closing.done():
            self.disconnect()

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["type"] in {"initial-load", "resync"}:
            self._load(message)
        elif message["type"] == "stale":
            pass  # on a slow machine its snapshot takes so long that it is told
        elif message["channel"] == "direct":
            assert message["data"]["n"] not in self._direct, "published once, received twice"
            self._direct.add(message["data"]["n"])
        else:
            self._update(message)
        self._check_completeness()

    def _load(self, message: dict[str, Any]) -> None:
        recovered = message.get("recovered", False)
        self.loads.append(recovered)
        if recovered:
            assert message["id"] == self._asked == self.last
            assert self._database.numbered
            return
        self.last = message["id"]
        # Without a snapshot, a client reads the state from an API of its own.
        self.state = message["data"] or (self._database.state(self.match) if "error" in message else nothing())

    def _update(self, message: dict[str, Any]) -> None:
        if message["id"] is not None:
            assert self.last is None or EventId.parse(message["id"]) > EventId.parse(self.last), "out of order"
            self.last = message["id"]
        apply(self.state, message)

    def _check_completeness(self) -> None:
        """Check that it has every play of its epoch up to its last id."""
        if self.last is None:
            return
        last, plays = EventId.parse(self.last), set(self.state["plays"])
        for event in self._database.log:
            at = event.parsed_id
            if event.channel == PLAYS and at and at.epoch == last.epoch and at <= last:
                payload = json.loads(bytes(event.payload))
                if payload["match_id"] == self.match:
                    assert payload["data"]["n"] in plays, f"{event.id} is missing at {last}"


def epoch(event: Event) -> int | None:
    return event.parsed_id.epoch if event.parsed_id else None


async def answer(worker: Worker, which: int) -> None:
    """Have one of the answers come that a worker waits for."""
    await run_ready_tasks(5)
    if worker.pending:
        worker.pending.pop(which % len(worker.pending))()
        await run_ready_tasks(5)


async def settle(workers: list[Worker]) -> None:
    """Deliver all notifications and all answers."""
    for worker in workers:
        worker.fails = False
        worker.receive(10**6)
    while True:
        await run_ready_tasks(10)
        waiting = [worker for worker in workers if worker.pending]
        if not waiting:
            return
        for worker in waiting:
            await answer(worker, 0)
