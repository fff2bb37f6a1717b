"""Random subscribes and unsubscribes under load on real servers: every connection hears what a model says."""

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from notifymux.event import EventId
from tests.conftest import StartApp, StartListener
from tests.support.several_matches import Connection
from tests.support.waiting import wait_until

MATCHES = tuple(range(30))
EVENTS_PER_SECOND = 200
PACE_SECONDS = 0.002  # between two requests of all connections; the rate of one is far below its bound


class Writer:
    """Commits numbered events of random matches, up to six in a transaction, until it is stopped."""

    def __init__(self, connection: psycopg.Connection, seed: int) -> None:
        self._connection, self._random = connection, random.Random(seed)
        self._is_stopped = threading.Event()
        self.matches: list[int] = []  # of each event, in commit order

    def commit(self, *matches: int) -> None:
        with self._connection.transaction():
            for match in matches:
                payload = json.dumps({"match_id": match, "operation": "UPDATE", "data": len(self.matches)})
                self._connection.execute("SELECT pg_notify('match_change', %s)", [payload])
                self.matches.append(match)

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            matches = self._random.choices(MATCHES, k=self._random.randint(1, 6))
            self.commit(*matches)
            self._is_stopped.wait(len(matches) / EVENTS_PER_SECOND)

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._is_stopped.set()
            thread.join()


class RandomViewer(Connection):
    """A connection that asks for random matches, and remembers what it has asked for."""

    def begin(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.wanted: set[int] = set()
        self.asked: dict[int, set[str]] = defaultdict(set)  # the ids with which it resumed, by match
        self.subscribes = self.unsubscribes = 0

    def act(self) -> None:
        match = self._random.choice(MATCHES)
        if match in self.wanted and self._random.random() < 0.7:
            self.send("unsubscribe", match_id=match)
            self.unsubscribes += 1
            self.wanted.discard(match)
            return
        last = self._position(match) if self._random.random() < 0.6 else None
        self.send("subscribe", match_id=match, last_event_id=last)
        self.subscribes += 1
        self.wanted.add(match)
        if last:
            self.asked[match].add(last)

    def _position(self, match: int) -> str | None:
        about = (message for message in reversed(list(self.messages)) if message.get("match_id") == match)
        return next((message["id"] for message in about if "id" in message), None)

    def has_heard(self, last: dict[int, EventId]) -> bool:
        """Whether it has had all answers, and is at the last event of every match that it wants, or beyond it."""
        if len(self.of_type("unsubscribed")) < self.unsubscribes:
            return False
        places = {match: self._position(match) for match in self.wanted}
        return all(place and EventId.parse(place) >= last[match] for match, place in places.items())

    def check(self, events: dict[int, list[tuple[EventId, int]]]) -> int:
        """Check all that was heard against the events by match, each with its id; return the number of updates."""
        heard: dict[int, list[tuple[EventId, int]]] = {}  # since the start of each subscription that is open
        base: dict[int, EventId] = {}
        highest: dict[int, EventId] = {}  # of any match since then
        for message in self.messages:
            match message["type"]:
                case "initial-load":
                    self._check_part(message["match_id"], heard, base, events)
                    number, at = message["match_id"], EventId.parse(message["id"])
                    assert not message["recovered"] or message["id"] in self.asked[number]
                    heard[number], base[number], highest[number] = [], at, at
                case "unsubscribed":
                    self._check_part(message["match_id"], heard, base, events)
                    for by_match in (heard, base, highest):
                        by_match.pop(message["match_id"], None)
                case "match-update":
                    number, at = message["match_id"], EventId.parse(message["id"])
                    assert number in heard, "heard without a subscription"
                    assert at > highest[number], "out of order, or twice"
                    highest = {each: max(before, at) for each, before in highest.items()}
                    heard[number].append((at, message["data"]))
                case kind:
                    assert kind == "ping"
        for number in list(heard):
            self._check_part(number, heard, base, events)
        assert heard.keys() == self.wanted
        return len(self.updates)

    @staticmethod
    def _check_part(
        match: int,
        heard: dict[int, list[tuple[EventId, int]]],
        base: dict[int, EventId],
        events: dict[int, list[tuple[EventId, int]]],
    ) -> None:
        """Check that nothing is missing from the start of a subscription up to the last event that was heard."""
        if part := heard.get(match):
            assert part == [event for event in events[match] if base[match] < event[0] <= part[-1][0]]


def run(
    settings: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
    *,
    viewers: int,
    requests: int,
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings, workers=2).wait_until_ready()
    writer, chooser = Writer(connection, 1), random.Random(2)
    with ExitStack() as stack:
        witness = stack.enter_context(Connection(app.port, "witness"))
        witness.subscribe(*MATCHES)
        witness.wait_for(len(MATCHES), "initial-load")
        several = [stack.enter_context(RandomViewer(app.port, f"viewer-{number}")) for number in range(viewers)]
        for number, viewer in enumerate(several):
            viewer.begin(number)
        with writer.running():
            for _ in range(requests):
                chooser.choice(several).act()
                time.sleep(PACE_SECONDS)
            wait_until(lambda: len(writer.matches) >= requests // 2, 60)
        wait_until(lambda: len(witness.updates) == len(writer.matches), 60)
        writer.commit(*MATCHES)
        witness.wait_for_updates(len(writer.matches))
        assert [update["data"] for update in witness.updates] == list(range(len(writer.matches)))
        events: dict[int, list[tuple[EventId, int]]] = defaultdict(list)
        for update in witness.updates:
            events[update["match_id"]].append((EventId.parse(update["id"]), update["data"]))
        last = {match: of_match[-1][0] for match, of_match in events.items()}
        wait_until(lambda: all(viewer.has_heard(last) for viewer in several), 60)
        assert sum(viewer.check(events) for viewer in several) > requests
        assert any(load["recovered"] for viewer in several for load in viewer.of_type("initial-load"))
        assert sum(viewer.subscribes + viewer.unsubscribes for viewer in several) == requests


def test_500_random_subscribes_and_unsubscribes_under_load(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    run(settings, connection, start_listener, start_app, viewers=10, requests=500)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_10_000_random_subscribes_and_unsubscribes_under_load(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    run(settings, connection, start_listener, start_app, viewers=100, requests=10_000)
