"""How gunicorn's workers end: they turn newcomers away, close their clients evenly spaced, and deliver until then."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import psutil
import psycopg
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import StartApp, StartListener
from tests.support.programs import App, Client, EventStream
from tests.support.waiting import wait_until

SECONDS, SOCKETS, STREAMS = 3, 24, 8
CLIENTS = SOCKETS + STREAMS
DELAY = re.compile(r"retry: (\d+)")


@pytest.fixture
def postgres_settings(settings: dict[str, str]) -> dict[str, str]:
    return settings | {"USE_REDIS_NOTIFIER": "false", "DRAIN_SECONDS": str(SECONDS)}


@contextmanager
def crowd(app: App, sockets: int = SOCKETS, streams: int = 0) -> Iterator[list[Client | EventStream]]:
    """Clients that have their initial load, over both kinds of connections, one after another."""
    with ExitStack() as stack:
        clients: list[Client | EventStream] = [app.client(1, f"c{number}") for number in range(sockets)]
        clients += [app.stream(1) for _ in range(streams)]
        for client in clients:
            stack.enter_context(client)
        for client in clients:
            client.wait_for_initial_load()
        yield clients


@contextmanager
def on_each_worker(app: App) -> Iterator[None]:
    """One client on each of two workers, which have started then."""
    with ExitStack() as stack:
        for client in app.client_of_each_worker(1, 2).values():
            stack.enter_context(client)
        yield


def is_closed(client: Client | EventStream) -> bool:
    return client.code is not None if isinstance(client, Client) else client.has_ended


def workers_of(app: App) -> list[psutil.Process]:
    return list(psutil.Process(app.pid).children())


def test_clients_are_closed_one_after_another_evenly_over_the_time(
    postgres_settings: dict[str, str], start_app: StartApp
) -> None:
    app = start_app(postgres_settings).wait_until_ready()
    with crowd(app, SOCKETS, STREAMS) as clients:
        began = time.monotonic()
        app.signal(signal.SIGTERM)
        closed: dict[int, float] = {}
        looks = [0.0]

        def all_closed() -> bool:
            now = time.monotonic() - began
            looks.append(now)
            closed.update({n: now for n, client in enumerate(clients) if n not in closed and is_closed(client)})
            return len(closed) == len(clients)

        wait_until(all_closed)
        assert app.exit_code() == 0
    late = max(after - before for before, after in pairwise(looks))  # this process's own longest pause
    assert all(closed[n] <= closed[n + 3] + late for n in range(CLIENTS - 3)), "those that came first go first"
    times = list(closed.values())
    assert SECONDS * 0.8 - late < times[-1] - times[0] < SECONDS + 2 + late
    busiest = max(sum(at <= other < at + 1 for other in times) for at in times)
    assert busiest <= (1.6 + late) * CLIENTS / SECONDS, times
    assert {client.code for client in clients if isinstance(client, Client)} == {1012}
    for client in clients:
        if isinstance(client, EventStream):
            first, last = [int(delay) for delay in DELAY.findall("\n".join(client.lines))]
            assert 1000 <= first <= 5000, "in an outage, all come back at their own time"
            assert 250 <= last <= 500, "now they come one by one anyhow"
    assert "Traceback" not in app.log


def test_a_worker_that_drains_is_alive_and_not_ready_turns_newcomers_away_and_delivers(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | {"DRAIN_SECONDS": "60"}, workers=2).wait_until_ready()
    with on_each_worker(app), crowd(app, 60) as clients:
        app.signal(signal.SIGTERM)
        wait_until(lambda: app.log.count("this worker ends: it closes its") == 2)
        for _ in range(4):  # whichever worker answers
            status, body = app.get("/readyz")
            assert (status, body["state"], body["ready"]) == (503, "draining", False)
            assert "this worker ends, and closes its clients" in body["reasons"]
            assert app.get("/healthz")[0] == 200
            with pytest.raises(InvalidStatus) as refused:
                app.client(1, "newcomer")
            assert refused.value.response.status_code == 503
            assert int(refused.value.response.headers["retry-after"]) == 1
            with app.stream(1) as stream:
                stream.wait_until_ended()
                assert stream.response.status == 200, "after any other, an EventSource gives up"
                assert stream.messages == []
                assert 250 <= int(DELAY.findall("\n".join(stream.lines))[-1]) <= 500
        connection.execute("""SELECT pg_notify('match_change', '{"match_id": 1, "data": 5, "operation": "UPDATE"}')""")
        left = [client for client in clients if not is_closed(client)]
        assert len(left) >= 2
        left[-1].wait_for_updates(1)
        app.signal(signal.SIGTERM)
        wait_until(lambda: all(map(is_closed, clients)), 8, "the second SIGTERM ends the drain")
        assert app.exit_code() == 0
    assert {client.code for client in clients if isinstance(client, Client)} == {1012}
    assert not any(client.of_type("resync") for client in clients)


def test_with_few_clients_a_worker_ends_soon(postgres_settings: dict[str, str], start_app: StartApp) -> None:
    app = start_app(postgres_settings | {"DRAIN_SECONDS": "300"}).wait_until_ready()
    with crowd(app, 2, 1):
        assert app.stop(within=10) == 0


def test_sigquit_closes_all_clients_at_once(postgres_settings: dict[str, str], start_app: StartApp) -> None:
    app = start_app(postgres_settings | {"DRAIN_SECONDS": "300"}, workers=2).wait_until_ready()
    with on_each_worker(app), crowd(app) as clients:
        app.signal(signal.SIGQUIT)
        assert app.exit_code(8) == 0
        wait_until(lambda: all(map(is_closed, clients)))
        assert {client.code for client in clients if isinstance(client, Client)} == {1012}


def test_a_reload_by_sighup_closes_the_clients_of_the_old_workers_and_refuses_nobody(
    postgres_settings: dict[str, str], start_app: StartApp
) -> None:
    app = start_app(postgres_settings, workers=2).wait_until_ready()
    wait_until(lambda: len(workers_of(app)) == 2, what="the other worker has been started too")
    old = {worker.pid for worker in workers_of(app)}
    with crowd(app) as clients:
        app.signal(signal.SIGHUP)
        newcomers = 0
        while old & {worker.pid for worker in workers_of(app)}:
            with app.client(1, f"newcomer{newcomers}") as newcomer:
                newcomer.wait_for_initial_load()
                newcomers += not is_closed(newcomer) and newcomer.worker not in old
        assert newcomers > 0
        wait_until(lambda: all(map(is_closed, clients)))
        assert {client.code for client in clients if isinstance(client, Client)} == {1012}
        assert len(workers_of(app)) == 2
    assert app.stop() == 0


def test_workers_whose_master_was_killed_leave_the_address_to_its_successor(
    postgres_settings: dict[str, str], start_app: StartApp
) -> None:
    app = start_app(postgres_settings | {"DRAIN_SECONDS": "60"}, workers=2).wait_until_ready()
    with crowd(app) as clients:
        os.kill(app.pid, signal.SIGKILL)
        wait_until(lambda: app.get("/healthz")[0] == 0, 5, "nobody listens")
        assert not all(map(is_closed, clients)), "they drain"
