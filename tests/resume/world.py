"""A small world around real hubs: a database that counts, a stream, workers that lag, viewers who come and go.

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

from app.broadcast.hub import Client, Hub
from app.broadcast.messages import Router
from app.broadcast.snapshot_query import Snapshot
from app.core.config import MUX_CHANNEL
from notifymux.event import Event, EventId
from tests.support.loops import run_ready_tasks

MATCHES = ("1", "two")
CLOCK, PLAYS = "gameclock_change", "football_event_change"
STREAM = 40  # entries the stream holds
QUEUE, HISTORY = 3_000, 6_000  # bytes: five events fill half a queue, and eight a history

State = dict[str, Any]  # {"plays": [n, …], "clocks": {row: n}}


def nothing() -> State:
    return {"plays": [], "clocks": {}}


def apply(state: State, message: dict[str, Any]) -> None:
    if message["channel"] == CLOCK:
        state["clocks"][str(message["data"]["id"])] = message["data"]["n"]
    else:
        state["plays"].append(message["data"]["n"])


class Database:
    """The truth: what every match is now, and the count of what was notified."""

    def __init__(self, *, numbered: bool) -> None:
        self.numbered = numbered
        self.matches: dict[str, State] = defaultdict(nothing)
        self.log: list[Event] = []  # what was notified; a begin is an event of the listeners' own
        self.last = EventId(1000, 0)
        self._count = 0

    def write(self, match: str, channel: str, row: int, *, heard: bool = True) -> None:
        """Changes a row; `heard` says whether any listener was alive."""
        self._count += 1
        payload = {"match_id": match, "operation": "UPDATE", "data": {"id": row, "n": self._count, "pad": "." * 150}}
        message = {"channel": channel, "data": payload["data"]}
        apply(self.matches[match], message)
        if heard:
            self._notify(channel, payload)

    def canary(self) -> None:
        self._notify(MUX_CHANNEL, {"canary": 1})

    def begin(self) -> None:
        """A new epoch."""
        self.last = EventId(self.last.epoch + 7, 0)
        self._notify(MUX_CHANNEL, {"begin": self.last.epoch})

    def state(self, match: str) -> State:
        return copy.deepcopy(self.matches[match])

    def recall(self, after: EventId, until: EventId) -> list[Event] | None:
        """From the stream's last entries, without a hole; None if they are not all there."""
        numbers = [EventId.parse(event.id or "") for event in self.log[-STREAM:]]
        kept = dict(zip(numbers, self.log[-STREAM:], strict=True))
        wanted = [EventId(after.epoch, number) for number in range(after.sequence + 1, until.sequence + 1)]
        return [kept[number] for number in wanted] if all(number in kept for number in wanted) else None

    def _notify(self, channel: str, payload: object) -> None:
        self.last = EventId(self.last.epoch, self.last.sequence + 1)
        number = str(self.last) if self.numbered else None
        self.log.append(Event(channel, msgspec.Raw(json.dumps(payload).encode()), number))


class Worker:
    """A hub, how far its source has come, and what it waits for."""

    def __init__(self, database: Database, remembers: int) -> None:
        self._database = database
        self._heard = len(database.log)
        self.pending: list[Callable[[], None]] = []  # answers of PostgreSQL and Redis, in no order
        self.fails = False
        self.recalls = 0  # that found everything
        self.hub = Hub(Router("match_id", [CLOCK]), self._snapshot, self._recall, QUEUE, HISTORY)
        recent = self._same_epoch(database.log[-remembers:]) if remembers and database.numbered else []
        self.hub.start(database.last if database.numbered else None, recent)

    @staticmethod
    def _same_epoch(events: list[Event]) -> list[Event]:
        epoch = EventId.parse(events[-1].id or "").epoch if events else 0
        return [event for event in events if EventId.parse(event.id or "").epoch == epoch]

    def hear(self, count: int) -> None:
        """What its source does with the next notifications."""
        burst: list[Event] = []
        for event in self._database.log[self._heard : self._heard + count]:
            self._heard += 1
            if event.channel == MUX_CHANNEL and b"begin" in bytes(event.payload):
                self.hub.deliver(burst)
                burst = []
                self.hub.gap(EventId.parse(event.id) if event.id else None, "a new epoch")
            else:
                burst.append(event)
        self.hub.deliver(burst)

    def lose_its_place(self) -> None:
        """Its own session was replaced, or the stream was trimmed under it: events are lost to it."""
        self._heard = len(self._database.log)
        self.hub.gap(self._database.last if self._database.numbered else None, "lost")

    def published(self, match: str, number: int) -> None:
        """What somebody published directly."""
        payload = {"match_id": match, "data": {"n": number}}
        self.hub.deliver([Event("direct", msgspec.Raw(json.dumps(payload).encode()))])

    async def _answer(self, ask: Callable[[], Any], *, early: bool) -> Any:
        """`ask` when asked or when answered; the answer comes when the schedule says so."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asked = ask() if early else None
        self.pending.append(lambda: None if future.done() else future.set_result(asked if early else ask()))
        return await future

    def _snapshot(self, match: str) -> Awaitable[Snapshot]:
        if self.fails:
            return self._answer(lambda: Snapshot(b"null", "no"), early=True)
        early = len(self.pending) % 2 == 0
        return self._answer(lambda: Snapshot(json.dumps(self._database.state(match)).encode()), early=early)

    async def _recall(self, after: EventId, until: EventId) -> list[Event] | None:
        events: list[Event] | None = await self._answer(partial(self._database.recall, after, until), early=False)
        self.recalls += events is not None
        return events


class Viewer:
    """Applies what it hears as docs/protocol.md says, and checks it."""

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
        """Takes what waits; only the first of it, if the connection dies over it."""
        if self._client is None:
            return
        messages = self._client.outbox.take()
        for message in messages[:most]:
            self._heard(json.loads(message.text))
        if most is not None and most < len(messages):
            self.disconnect()
            return
        if self._client.closing.done():
            self.disconnect()

    def _heard(self, message: dict[str, Any]) -> None:
        if message["type"] in {"initial-load", "resync"}:
            self._load(message)
        elif message["channel"] == "direct":
            assert message["data"]["n"] not in self._direct, "published once, heard twice"
            self._direct.add(message["data"]["n"])
        else:
            self._update(message)
        self._misses_nothing_up_to_here()

    def _load(self, message: dict[str, Any]) -> None:
        recovered = message.get("recovered", False)
        self.loads.append(recovered)
        if recovered:
            assert message["id"] == self._asked == self.last
            assert self._database.numbered
            return
        self.last = message["id"]
        # Without a snapshot a client asks the database by a way of its own.
        self.state = message["data"] or (self._database.state(self.match) if "error" in message else nothing())

    def _update(self, message: dict[str, Any]) -> None:
        if message["id"] is not None:
            assert self.last is None or EventId.parse(message["id"]) > EventId.parse(self.last), "out of order"
            self.last = message["id"]
        apply(self.state, message)

    def _misses_nothing_up_to_here(self) -> None:
        """It has every play of its epoch up to its last id."""
        if self.last is None:
            return
        last, plays = EventId.parse(self.last), set(self.state["plays"])
        for event in self._database.log:
            at = EventId.parse(event.id or "")
            if event.channel == PLAYS and at.epoch == last.epoch and at <= last:
                payload = json.loads(bytes(event.payload))
                if payload["match_id"] == self.match:
                    assert payload["data"]["n"] in plays, f"{event.id} is missing at {last}"


async def answer(worker: Worker, which: int) -> None:
    """Lets one of what a worker waits for be answered."""
    await run_ready_tasks(5)
    if worker.pending:
        worker.pending.pop(which % len(worker.pending))()
        await run_ready_tasks(5)


async def settle(workers: list[Worker]) -> None:
    """Everything is heard and answered."""
    for worker in workers:
        worker.fails = False
        worker.hear(10**6)
    while True:
        await run_ready_tasks(10)
        asked = [worker for worker in workers if worker.pending]
        if not asked:
            return
        for worker in asked:
            await answer(worker, 0)
