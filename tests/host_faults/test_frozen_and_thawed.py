"""A laptop that was suspended, a machine that was migrated: what nobody could do meanwhile is nobody's fault."""

import os
import signal
from contextlib import ExitStack

import psutil
import pytest

from tests.conftest import StartApp, StartListener
from tests.support.canaries import Canaries
from tests.support.numbered import MATCH, Numbered
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


def test_a_worker_that_was_frozen_for_several_ping_intervals_closes_no_client(
    settings: dict[str, str], database: str, events: Numbered, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | {"PING_INTERVAL": "1.5"}).wait_until_ready()
    with ExitStack() as stack, Canaries(database) as canaries:
        clients = [stack.enter_context(app.client(MATCH, f"client-{number}")) for number in range(20)]
        for client in clients:
            client.wait_for_initial_load()
        worker = psutil.Process(clients[0].worker)
        for _ in range(2):
            pings = [len(client.of_type("ping")) for client in clients]
            worker.suspend()
            canaries.pass_by(12)  # which takes 6 s: four pings would have been due
            events.commit(1)
            worker.resume()
            for client, before in zip(clients, pings, strict=True):
                wait_until(lambda client=client, before=before: len(client.of_type("ping")) > before + 2 or client.code)  # type: ignore[misc]
            assert [client.code for client in clients] == [None] * len(clients)
        for client in clients:
            events.heard_by(client)


def test_a_silent_client_is_closed_also_after_its_worker_was_frozen(
    settings: dict[str, str], database: str, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | {"PING_INTERVAL": "0.6"}).wait_until_ready()
    with app.client(MATCH, pongs=False) as client, Canaries(database) as canaries:
        client.wait_for_initial_load()
        worker = psutil.Process(client.worker)
        worker.suspend()
        canaries.pass_by(5)
        worker.resume()
        assert client.wait_until_closed(within=10) == 3012


def test_gunicorn_kills_no_worker_that_was_frozen_with_everything_else(
    settings: dict[str, str], database: str, events: Numbered, start_listener: StartListener, start_app: StartApp
) -> None:
    """With the master's 20 seconds made six; whoever goes on first finds everybody else silent."""
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | {"GUNICORN_CMD_ARGS": "--timeout 6"}, workers=3).wait_until_ready()
    clients = app.client_of_each_worker(MATCH, 3)
    before = {child.pid for child in psutil.Process(app.pid).children()}
    with Canaries(database) as canaries:
        os.killpg(app.pid, signal.SIGSTOP)
        canaries.pass_by(13)  # which takes 6.5 s
        os.killpg(app.pid, signal.SIGCONT)
        events.commit(1)
        canaries.pass_by(3)
        for client in clients.values():
            assert client.code is None, app.log
            events.heard_by(client)
            client.close()
    assert {child.pid for child in psutil.Process(app.pid).children()} == before, app.log
    assert "WORKER TIMEOUT" not in app.log


def test_gunicorn_replaces_a_worker_that_alone_was_frozen(settings: dict[str, str], start_app: StartApp) -> None:
    """The neighbour that has to stay: a worker that hangs while the master runs."""
    app = start_app(settings | {"GUNICORN_CMD_ARGS": "--timeout 2"}, workers=2)
    wait_until(lambda: app.get("/healthz")[0] == 200)
    wait_until(lambda: len(psutil.Process(app.pid).children()) == 2)
    before = psutil.Process(app.pid).children()
    before[0].suspend()
    wait_until(lambda: len({child.pid for child in psutil.Process(app.pid).children()} - {before[0].pid}) == 2, 20)
