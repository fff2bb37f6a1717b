"""A limit of open files below what MAX_CLIENTS takes."""

from collections import Counter
from contextlib import ExitStack

import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.conftest import StartListener
from tests.host_faults.conftest import StartWrappedApp
from tests.support.numbered import MATCH, Numbered
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

LIMIT = 150


def test_a_limit_below_max_clients_is_said_at_the_start_and_clients_past_it_are_refused_and_probes_are_not(
    settings: dict[str, str], events: Numbered, start_listener: StartListener, start_wrapped_app: StartWrappedApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_wrapped_app(["prlimit", f"--nofile={LIMIT}:{LIMIT}"], settings).wait_until_ready()
    with ExitStack() as stack:
        clients, refused = [], Counter[object]()
        for number in range(LIMIT + 20):
            try:
                clients.append(stack.enter_context(app.client(MATCH, f"client-{number}")))
            except InvalidStatus as error:
                refused[error.response.status_code] += 1
            except (OSError, EOFError, WebSocketException) as error:
                refused[type(error).__name__] += 1
            if refused.total() > 10:
                break
        assert set(refused) == {503}, refused
        assert len(clients) > LIMIT // 4
        for _ in range(5):
            for path in ("/healthz", "/readyz", "/metrics", "/api/status"):
                assert app.get(path)[0] == 200, path
        events.commit(5)
        for client in clients:
            events.heard_by(client)
    wait_until(lambda: app.get("/readyz")[1]["clients"] == 0)
    said = [line for line in app.lines if str(LIMIT) in line and "MAX_CLIENTS" in line]
    assert len(said) == 1, app.log
    assert any("full" in line for line in app.lines), "the worker that became full says so, as it does at MAX_CLIENTS"
