"""What one address can make a worker do at a time, while others come and stay."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import StartApp, StartListener
from tests.http.raw_client import RawClient
from tests.support.waiting import wait_until

STRANGER, HOME = "127.0.0.2", "127.0.0.1"
SLOW_QUERY = "SELECT to_json(%(match_id)s::text) FROM pg_sleep(0.2)"


@contextmanager
def made_up_matches(port: int, address: str, each_second: float = 75.0) -> Iterator[list[str]]:
    """Open a client of another match again and again, one at a time, and leave at once; yield the matches so far."""
    ending = threading.Event()
    matches: list[str] = []

    def open_and_leave() -> None:
        while not ending.wait(1 / each_second):
            with RawClient(port, address=address) as client:
                client.open_websocket(f"made-up-{len(matches)}")
            matches.append(f"made-up-{len(matches)}")

    thread = threading.Thread(target=open_and_leave)
    thread.start()
    try:
        yield matches
    finally:
        ending.set()
        thread.join()


@pytest.mark.parametrize("stranger", [STRANGER, HOME], ids=["another address", "the same address, as behind a proxy"])
def test_matches_that_a_stranger_asks_for_and_leaves_delay_no_newcomers_snapshot(
    settings: dict[str, str], start_listener: StartListener, start_app: StartApp, stranger: str
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | {"SNAPSHOT_QUERY": SLOW_QUERY}).wait_until_ready()
    with made_up_matches(app.port, stranger) as matches:
        wait_until(lambda: len(matches) > 100)
        for number in range(3):
            began = time.monotonic()
            with app.client(f"final-{number}") as newcomer:
                first = newcomer.wait_for_initial_load()
            assert (first.get("error"), first["data"]) == (None, f"final-{number}")
            assert time.monotonic() - began < 2
