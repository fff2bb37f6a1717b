"""What one address can make a worker do at a time, while others come and stay."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.conftest import StartApp, StartListener
from tests.http.raw_client import RawClient
from tests.support.programs import Client, EventStream
from tests.support.servers import free_port
from tests.support.waiting import hold_for, wait_until
from tests.support.wrapped import WrappedApp

STRANGER, HOME = "127.0.0.2", "127.0.0.1"
from_both = pytest.mark.parametrize(
    "stranger", [STRANGER, HOME], ids=["another address", "the same address, as behind a proxy"]
)
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


@from_both
def test_matches_that_a_stranger_asks_for_and_leaves_delay_no_newcomers_snapshot(
    settings: dict[str, str], start_listener: StartListener, start_app: StartApp, stranger: str
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | {"SNAPSHOT_QUERY": SLOW_QUERY}).wait_until_ready()
    with made_up_matches(app.port, stranger) as matches:
        wait_until(lambda: len(matches) > 100)
        times = []
        for number in range(3):
            began = time.monotonic()
            with app.client(f"final-{number}") as newcomer:
                first = newcomer.wait_for_initial_load()
            assert (first.get("error"), first["data"]) == (None, f"final-{number}")
            times.append(time.monotonic() - began)
    assert min(times) < 2, "behind a hundred others each takes 9 s"


def test_matches_whose_query_takes_too_long_take_nobody_elses_snapshot(
    settings: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    """PostgreSQL answers, so whoever waits behind three timeouts goes on waiting."""
    start_listener(settings).wait_until_aligned()
    query = "SELECT to_json(%(match_id)s::text) FROM pg_sleep(CASE WHEN %(match_id)s LIKE 'slow%%' THEN 60 ELSE 0 END)"
    settings = settings | {"SNAPSHOT_QUERY": query, "SNAPSHOT_TIMEOUT": "3", "SNAPSHOT_POOL": "1"}
    app = start_app(settings).wait_until_ready()
    with ExitStack() as stack:
        slow = [stack.enter_context(app.client(f"slow-{number}")) for number in range(3)]
        others = [stack.enter_context(app.client(f"final-{number}")) for number in range(3)]
        assert [client.wait_for_initial_load()["data"] for client in others] == ["final-0", "final-1", "final-2"]
        assert all("error" in client.wait_for_initial_load() for client in slow)


def test_matches_that_are_left_before_the_worker_has_started_do_not_stay_in_the_queue(
    settings: dict[str, str], start_app: StartApp
) -> None:
    """Without Redis, clients start after 3 s."""
    app = start_app(settings | {"REDIS_URL": f"redis://127.0.0.1:{free_port()}"})
    wait_until(lambda: app.get("/healthz")[0] == 200)
    with made_up_matches(app.port, STRANGER) as matches:
        wait_until(lambda: len(matches) > 20)
    with app.client("final") as stays:
        stays.wait_for_initial_load()
    hold_for(2, lambda: b"\nnotifymux_snapshots_waiting 0.0\n" in app.get("/metrics")[1])


def test_requests_for_metrics_that_are_left_at_once_cost_one_answer_at_a_time(
    settings: dict[str, str], start_app: StartApp
) -> None:
    app = start_app(settings)
    wait_until(lambda: app.get("/metrics")[0] == 200)
    [worker] = psutil.Process(app.pid).children()
    threads = worker.num_threads()
    for _ in range(300):
        with RawClient(app.port, address=STRANGER) as client:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.get("/metrics")[0] == 200
    assert worker.num_threads() <= threads + 1


FILES = 150  # that the worker may open
UNFINISHED, IDLE = b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@from_both
def test_connections_that_are_no_clients_take_neither_probes_nor_clients_their_room_and_it_is_said(
    settings: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    tmp_path: Path,
    stranger: str,
) -> None:
    start_listener(settings).wait_until_aligned()
    with WrappedApp(["prlimit", f"--nofile={FILES}:{FILES}"], tmp_path, settings) as app, ExitStack() as stack:
        app.wait_until_ready()
        clients: list[Client | EventStream] = [stack.enter_context(app.stream(1))]
        clients += [stack.enter_context(app.client(1, f"client-{number}")) for number in range(20)]
        for number in range(2 * FILES):
            idle = stack.enter_context(RawClient(app.port, address=stranger))
            idle.send(IDLE if number % 2 else UNFINISHED)
            if number % 20 == 0:
                assert app.get("/healthz") == (200, {"alive": True})
        for path in ("/healthz", "/readyz", "/metrics", "/api/status", "/static/notifymux.js"):
            wait_until(lambda path=path: app.get(path)[0] == 200, 5, path)  # type: ignore[misc]
        connection.execute("""SELECT pg_notify('match_change', '{"match_id": 1, "data": {}}')""")
        stack.enter_context(app.client(2, "newcomer")).wait_for_initial_load()
        for client in clients:
            client.wait_for_updates(1)
        [said] = [line for line in app.lines if "serve no client" in line]
        assert stranger in said
        wait_until(lambda: re.search(rb'refused_total{cause="idle"} [1-9]', app.get("/metrics")[1]))


def test_of_another_address_no_idle_connection_is_closed(
    settings: dict[str, str], start_listener: StartListener, tmp_path: Path
) -> None:
    start_listener(settings).wait_until_aligned()
    with WrappedApp(["prlimit", f"--nofile={FILES}:{FILES}"], tmp_path, settings) as app, ExitStack() as stack:
        app.wait_until_ready()
        kept = stack.enter_context(RawClient(app.port, address=HOME))
        kept.send(IDLE).read_until(b'{"alive":true}')
        strangers = [stack.enter_context(RawClient(app.port, address=STRANGER)) for _ in range(FILES)]
        assert strangers[0].read_all() == b"", "the first of them is closed"
        kept.send(IDLE).read_until(b'{"alive":true}')
