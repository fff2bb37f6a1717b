"""Connections with several matches against a model: what is heard is what was committed, in commit order, and once.

The loop only runs what is ready, so after every step of a schedule the model says exactly what has been heard.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.broadcast import initial_loads, update_queue
from app.broadcast.client import Client
from app.broadcast.hub import Hub
from app.broadcast.match_view import MatchView
from app.broadcast.messages import MessageBatch
from app.broadcast.queried_update import QueriedUpdate
from app.broadcast.query_pool import QueryResult
from app.broadcast.router import Router
from app.broadcast.topic import KeyValue, Topic
from app.core.query_files import parse_query
from notifymux.event import Event, EventId
from notifymux.stream_reader import Take
from tests.support.loops import async_test, run_ready_tasks
from tests.unit.test_hub import never_needed

MATCHES = ("1", "2", "3", "4")
PLAIN, ROW = "match_change", "row"
CUP = "cup"  # another key: some events have it, also of matches that clients hear, and some have nothing else
TOPICS = (*MATCHES, "cup 5")
EVENT = st.tuples(
    st.sampled_from((*MATCHES, "other", None)),
    st.sampled_from((PLAIN, ROW)),
    st.integers(1, 3),
    st.sampled_from((None, "5", "6")),
)
STEP = st.one_of(
    st.tuples(st.just("commit"), st.lists(EVENT, min_size=1, max_size=6)),
    st.tuples(st.just("subscribe"), st.integers(0, 1), st.sampled_from(TOPICS), st.booleans()),
    st.tuples(st.just("unsubscribe"), st.integers(0, 1), st.sampled_from(TOPICS)),
    st.tuples(st.just("cut"), st.integers(0, 3), st.booleans(), st.integers(0, 31)),
    st.tuples(st.just("answer"), st.integers(0, 10), st.booleans()),
    st.tuples(st.just("answer"), st.integers(0, 10), st.booleans()),
    st.tuples(st.just("commit"), st.lists(EVENT, min_size=1, max_size=3)),
    st.tuples(st.just("gap")),
)
Step = tuple[Any, ...]


class Viewer:
    """A client that keeps its place in each match over connections, and checks what it hears.

    Args:
        kind: `several` matches by WebSocket, `single` or `stream`: several on an event stream.
    """

    def __init__(self, world: "World", name: str, kind: str) -> None:
        self.world, self.name, self.kind = world, name, kind
        self.client: Client | None = None
        self.places: dict[str, list[int]] = defaultdict(list)  # in each match, also in those that are not subscribed
        self.last_event_id: int | None = None  # an EventSource's
        self.asked: dict[str, int | None] = {}  # the matches that are subscribed, with the id that was sent
        self.base: dict[str, int] = {}  # those that have started: after which id
        self.heard: dict[str, list[int]] = {}  # since then
        self.highest: dict[str, int] = {}  # of any match, heard since then
        self.recovered: set[str] = set()
        self.has_gap: set[str] = set()  # until their resync
        self.stale: set[str] = set()  # the client knows of the gap

    def place(self, match: str, *, is_behind: bool = False) -> int | None:
        """Return the last id of a match; with `is_behind`, an earlier one, as if another page had gone on with it."""
        places = self.places[match][-3:] if is_behind else self.places[match][-1:]
        return places[0] if places else None

    def connect(self, *, by_header: bool = False, behind: int = 0) -> None:
        """Connect again. `behind`: bits that choose matches."""
        self.disconnect()
        hub, matches = self.world.hub, list(self.asked)
        for match in matches:
            self._forget(match)
        self.asked = {match: self.place(match) for match in matches}
        if self.kind == "single":
            self.asked = {MATCHES[0]: self.place(MATCHES[0])}
            self.client = hub.join(MATCHES[0], self.name, _event_id(self.asked[MATCHES[0]]))
            return
        self.client = hub.connect(self.name, has_one_position=self.kind == "stream")
        if self.kind == "stream":
            header = self.last_event_id if by_header else None
            self.asked = {
                match: self.place(match, is_behind=bool(behind >> bit & 1)) if header is None else header
                for bit, match in enumerate(TOPICS)
            }
            hub.subscribe_all(self.client, [(_topic(match), _event_id(last)) for match, last in self.asked.items()])
        for match, last in self.asked.items() if self.kind == "several" else ():
            hub.subscribe(self.client, _topic(match), _event_id(last))

    def disconnect(self) -> None:
        if self.client:
            self.world.hub.leave(self.client)
            self.client.queue.drain()  # what was lost on the way

    def subscribe(self, match: str, *, resume: bool) -> None:
        assert self.client
        self._forget(match)
        self.asked[match] = self.place(match) if resume else None
        self.world.hub.subscribe(self.client, _topic(match), _event_id(self.asked[match]))

    def unsubscribe(self, match: str) -> None:
        assert self.client
        assert self.world.hub.unsubscribe(self.client, _topic(match)) == (match in self.asked)
        self.asked.pop(match, None)
        self._forget(match)

    def _forget(self, match: str) -> None:
        self.recovered.discard(match)
        self.has_gap.discard(match)
        self.stale.discard(match)
        for by_match in (self.base, self.heard, self.highest):
            by_match.pop(match, None)

    def gap(self) -> None:
        self.has_gap = set(self.base)

    def read(self) -> None:
        assert self.client
        assert not self.client.closing.done(), self.client.closing.result()
        for message in self.client.queue.drain():
            self._on_message(json.loads(message.text))
            if message.event_id and self.kind == "stream":
                self._on_id_line(EventId.parse(message.event_id).sequence)

    def _on_message(self, message: dict[str, Any]) -> None:
        number = EventId.parse(message["id"] or "0-0").sequence
        named = [str(message.get("match_id")), f"{CUP} {message.get(CUP)}"]
        topics = [topic for topic in named if topic in self.asked]
        assert topics, "nothing of a match that was left"
        if message["type"] in {"initial-load", "resync"}:
            self._start(topics[0], number, recovered=message.get("recovered", False))
        elif message["type"] == "stale":
            self.stale.add(topics.pop())
        else:
            # One that follows the initial-load of a topic may have been heard, by another one, before that.
            topics = [topic for topic in topics if topic in self.base and number > self.base[topic]]
            topics = [topic for topic in topics if number > self.highest[topic] and topic not in self.stale]
            assert topics, "it is in the snapshot, was heard before, or is out of order"
            assert self.has_gap.isdisjoint(topics), "before the resync of something that it is of"
            for each in self.highest:
                self.highest[each] = max(self.highest[each], number)
            for topic in topics:
                self.heard[topic].append(number)
            self.world.reached["several keys"] += len(topics) > 1
        for topic in topics:
            self.places[topic].append(number)
        self.world.reached[message["type"]] += 1

    def _start(self, match: str, number: int, *, recovered: bool) -> None:
        self._forget(match)
        if recovered:
            assert number == self.asked[match]
            self.recovered.add(match)
            self.world.reached["recovered"] += 1
        self.base[match], self.heard[match], self.highest[match] = number, [], 0

    def _on_id_line(self, place: int) -> None:
        """An EventSource may come back from here: it has everything up to here of all matches, and nothing later."""
        assert self.base.keys() == self.asked.keys(), "an id before the last initial-load"
        assert not self.has_gap, "an id before the last resync"
        for match in self.asked:
            assert all(number <= place for number in self.heard[match])
            assert match not in self.recovered or place >= self.base[match]
            self._expect(match, place + 1)
        self.last_event_id = place

    def check(self) -> None:
        """Everything has been heard that no query holds back."""
        assert self.client
        limit = self.world.first_waiting(self.base)
        for match in self.base.keys() - self.has_gap:
            self._expect(match, limit)

    def _expect(self, match: str, limit: int) -> None:
        committed = self.world.committed[match]
        expected = {number for number in committed if self.base[match] < number < limit}
        missing = expected - set(self.heard[match])
        assert all(self.world.is_covered(match, number) for number in missing), (match, missing)
        assert committed.keys() >= set(self.heard[match])

    def check_end(self) -> None:
        assert self.base.keys() == self.asked.keys(), "every subscription has started"
        assert not self.has_gap
        for match, heard in self.heard.items():
            rows = self.world.committed[match]
            for number in [number for number in rows if number > self.base[match] and number not in heard]:
                assert any(later > number and rows[later] == rows[number] for later in heard), (match, number)


class World:
    """A hub whose row queries wait for an answer, and a log of all events."""

    def __init__(self, reached: Counter[str], *, has_queries: bool, slow_snapshots: bool = False) -> None:
        self.reached, self.has_queries, self.slow_snapshots = reached, has_queries, slow_snapshots
        files = {ROW: parse_query(ROW, "SELECT %(new_id)s")} if has_queries else {}
        self.hub = Hub(
            Router("match_id", queries=files, other_keys=[CUP]),
            self._snapshot,
            self._range,
            1_000_000,
            2_500,
            snapshot_pool=2,
            snapshot_timeout=60.0,
            fetch_row=self._fetch_row if has_queries else None,
            row_timeout=60.0,
        )
        self.queries: list[asyncio.Future[QueryResult]] = []
        self.committed: dict[str, dict[int, object]] = defaultdict(dict)  # by match: what each number asks for
        self.log: list[Event] = []
        self.number = self.snapshots = 0
        self.hub.start(EventId(7, 0), [])
        self.viewers = [
            Viewer(self, "a", "several"),
            Viewer(self, "b", "several"),
            Viewer(self, "c", "single"),
            Viewer(self, "d", "stream"),
        ]

    async def run(self, steps: Sequence[Step]) -> None:
        for viewer in self.viewers:
            viewer.connect()
        for name, *arguments in steps:
            getattr(self, name)(*arguments)
            await self._settle()
        while self.queries:
            self.answer(0, False)
            await self._settle()
        for _ in range(6):
            await self._settle()  # the last snapshots
        for viewer in self.viewers:
            viewer.check_end()
        await self.hub.aclose()

    async def _settle(self) -> None:
        await run_ready_tasks(25)
        for viewer in self.viewers:
            viewer.read()
            viewer.check()

    def commit(self, events: Sequence[tuple[str | None, str, int, str | None]]) -> None:
        batch = []
        for match, channel, row, cup in events:
            self.number += 1
            is_queried = channel == ROW and self.has_queries
            for topic in (str(match), f"{CUP} {cup}"):
                self.committed[topic][self.number] = (row, match, cup) if is_queried else ("plain", self.number)
            payload = {"match_id": match, CUP: cup, "operation": "UPDATE", "new_id": row, "data": {"n": self.number}}
            batch.append(Event(channel, msgspec.Raw(json.dumps(payload).encode()), f"7-{self.number}"))
        self.log += batch
        self.hub.deliver(batch)

    def subscribe(self, which: int, match: str, resume: bool) -> None:
        self.viewers[which].subscribe(match, resume=resume)

    def unsubscribe(self, which: int, match: str) -> None:
        self.viewers[which].unsubscribe(match)

    def cut(self, which: int, by_header: bool, behind: int) -> None:
        self.viewers[which].connect(by_header=by_header, behind=behind)

    def answer(self, which: int, fails: bool) -> None:
        if self.queries:
            future = self.queries.pop(which % len(self.queries))
            if not future.done():
                future.set_result(QueryResult(b"null", "it failed") if fails else QueryResult(b"{}"))

    def gap(self) -> None:
        self.number += 1  # an event that this worker has not received
        for viewer in self.viewers:
            viewer.gap()
        self.hub.gap(EventId(7, self.number), "a test")

    def first_waiting(self, matches: Sequence[str] | dict[str, int]) -> int:
        """Return the number of the first event of some matches that waits for its query."""
        queues = self.hub.rows._queues if self.hub.rows else {}
        waiting = [queues[_topic(match)].first.parsed_id for match in matches if _topic(match) in queues]
        return min((event_id.sequence for event_id in waiting if event_id), default=self.number + 1)

    def is_covered(self, match: str, number: int) -> bool:
        rows = self.committed[match]
        return any(later > number and rows[later] == rows[number] for later in rows)

    async def _snapshot(self, _: MatchView) -> QueryResult:
        self.snapshots += 1
        if self.slow_snapshots and self.snapshots % 3 == 0:
            for _turn in range(40):  # longer than a step
                await asyncio.sleep(0)
        return QueryResult(b"{}")

    async def _range(self, after: EventId, until: EventId, take: Take) -> bool:
        self.reached["read back"] += 1
        await asyncio.sleep(0)
        return take([event for event in self.log if event.parsed_id and after < event.parsed_id <= until])

    async def _fetch_row(self, update: QueriedUpdate, _: str, within: float) -> QueryResult:
        self.queries.append(asyncio.get_running_loop().create_future())
        return await self.queries[-1]


def _topic(name: str) -> Topic:
    return KeyValue(CUP, name.removeprefix(f"{CUP} ")) if name.startswith(CUP) else name


def _event_id(number: int | None) -> EventId | None:
    return None if number is None else EventId(7, number)


@pytest.fixture(autouse=True)
def _no_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the duration of an example nor the machine's load decides what covers what, or who waits."""
    monkeypatch.setattr(update_queue, "_MERGE_SECONDS", 1e9)
    monkeypatch.setattr(initial_loads, "_WAIT_SECONDS", 0)
    monkeypatch.setattr(initial_loads, "_STALE_SECONDS", 1e6)
    monkeypatch.setattr(initial_loads, "_MAX_SNAPSHOTS", 1000)


@async_test
async def test_an_event_stream_does_not_start_while_an_update_waits_from_before_what_it_has_of_another_match() -> None:
    """The update's id would come later, and would stand for a place in the other match that the client is beyond."""
    world = World(Counter(), has_queries=True)
    witness = world.hub.connect("witness")
    world.hub.subscribe(witness, "1")
    await run_ready_tasks()
    world.commit([("1", ROW, 1, None), ("2", PLAIN, 1, None), ("1", PLAIN, 1, None)])
    stream = world.hub.connect("stream", has_one_position=True)
    world.hub.subscribe_all(stream, [("1", EventId(7, 0)), ("2", EventId(7, 2))])
    await run_ready_tasks()
    assert not stream.queue
    world.answer(0, False)
    await run_ready_tasks()
    messages = stream.queue.drain()
    assert [message.event_id for message in messages] == [None, None, None, "7-3"]
    assert [json.loads(message.text)["id"] for message in messages] == ["7-0", "7-2", "7-1", "7-3"]
    await world.hub.aclose()


@async_test
async def test_an_update_holds_back_the_connections_that_hear_its_match_and_no_others() -> None:
    world = World(Counter(), has_queries=True)
    both, other, single = world.hub.connect("both"), world.hub.connect("other"), world.hub.join("2", "single")
    for client, matches in ((both, "12"), (other, "23")):
        for match in matches:
            world.hub.subscribe(client, match)
    await run_ready_tasks()
    for client in (both, other, single):
        client.queue.drain()
    world.commit([("1", ROW, 1, None), ("2", PLAIN, 1, None)])
    await run_ready_tasks()
    assert [len(client.queue.drain()) for client in (both, other, single)] == [0, 1, 1]
    world.answer(0, False)
    await run_ready_tasks()
    assert [message.event_id for message in both.queue.drain()] == ["7-1", "7-2"]
    await world.hub.aclose()


@async_test
@pytest.mark.parametrize("slow", range(3))
async def test_a_client_knows_of_a_gap_before_it_hears_an_update_that_is_also_of_that_match(slow: int) -> None:
    world = World(Counter(), has_queries=False, slow_snapshots=True)
    world.snapshots = slow
    start = ("subscribe", 0, "1", False), ("subscribe", 0, "cup 5", False)
    await world.run([*start, ("gap",), *[("commit", [("1", PLAIN, 1, "5")])] * 3])
    assert world.reached["stale"] > 1


def keep(batches: list[MessageBatch], batch: MessageBatch) -> bool:
    batches.append(batch)
    return True


@async_test
async def test_connections_that_hear_the_same_share_one_batch() -> None:
    world = World(Counter(), has_queries=False)
    batches: dict[str, list[MessageBatch]] = defaultdict(list)
    for name, matches in (("a", "12"), ("b", "21"), ("c", "123"), ("d", "1"), ("e", "1")):
        client = world.hub.connect(name)
        for match in matches:
            world.hub.subscribe(client, match)
        await run_ready_tasks()
        client.queue.drain()
        client.attach(partial(keep, batches[name]), never_needed)
    world.commit([("2", PLAIN, 1, None), ("1", PLAIN, 1, None), ("3", PLAIN, 1, None), ("2", PLAIN, 1, None)])
    assert all(len(each) == 1 for each in batches.values())
    [a], [b], [c], [d], [e] = (batches[name] for name in "abcde")
    assert a is b
    assert d is e
    heard = [[message.event_id for message in batch.messages] for batch in (a, c, d)]
    assert heard == [["7-1", "7-2", "7-4"], ["7-1", "7-2", "7-3", "7-4"], ["7-2"]]
    await world.hub.aclose()


def check_reached(reached: Counter[str], *names: str) -> None:
    """The property proves something only if the schedules reach all of these."""
    assert all(reached[name] > 10 for name in names), reached


REACHED = ("initial-load", "recovered", "resync", "stale", "match-update", "row", "read back", "several keys")


def run_schedules(*, has_queries: bool, examples: int) -> Counter[str]:
    reached: Counter[str] = Counter()

    @settings(max_examples=examples)
    @given(st.lists(STEP, min_size=10, max_size=30))
    def run(steps: list[Step]) -> None:
        asyncio.run(World(reached, has_queries=has_queries, slow_snapshots=True).run(steps))

    run()
    return reached


def test_what_is_heard_is_what_was_committed_in_commit_order_over_all_matches() -> None:
    reached = run_schedules(has_queries=False, examples=300)
    check_reached(
        reached, "initial-load", "recovered", "resync", "stale", "match-update", "row", "read back", "several keys"
    )


def test_an_update_that_waits_for_its_query_holds_back_all_that_follow_on_its_connections() -> None:
    reached = run_schedules(has_queries=True, examples=300)
    check_reached(
        reached, "initial-load", "recovered", "resync", "stale", "match-update", "row", "read back", "several keys"
    )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_many_more_schedules() -> None:
    run_schedules(has_queries=True, examples=1_200)
