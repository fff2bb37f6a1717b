"""Events of one match that carry their number: what a client heard of them is easily judged."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg

from tests.support.programs import Client
from tests.support.waiting import hold_for

MATCH = 1


class Numbered:
    """Commits events of one match, numbered from 1, each in a transaction of its own."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.sent = 0

    def commit(self, count: int, *, every: float = 0.0) -> None:
        """Commits `count` events, `every` so many seconds."""
        for _ in range(count):
            self.sent += 1
            payload = json.dumps({"match_id": MATCH, "data": self.sent})
            self._connection.execute("SELECT pg_notify('match_change', %s)", [payload])
            if every:
                hold_for(every, lambda: True)

    @contextmanager
    def committing(self, per_second: float) -> Iterator[None]:
        """Commits so many events a second while the block runs, in a thread of its own."""
        ended = threading.Event()
        began = time.monotonic()

        def work() -> None:
            first = self.sent
            while not ended.wait(0.02):
                self.commit(int((time.monotonic() - began) * per_second) - (self.sent - first))

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            try:
                yield
            finally:
                ended.set()
        working.result()

    def heard_by(self, client: Client, within: float = 20.0) -> None:
        """Waits until a client has heard all, and asserts: each once, in order, and it was told of no gap."""
        client.wait_for_updates(self.sent, within)
        assert numbers(client.updates) == list(range(1, self.sent + 1))
        assert not client.of_type("resync")


def numbers(updates: Iterable[dict[str, int]]) -> list[int]:
    """The numbers that updates carry."""
    return [update["data"] for update in updates]
