"""Clients on Node.js, notifymux.js among them, reconnect after workers were killed or drained, and miss no event."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tests.conftest import StartApp, StartListener
from tests.support.documents import PROTOCOL, block
from tests.support.npm import install_packages
from tests.support.process import ROOT, Process
from tests.support.programs import App
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

HERE = Path(__file__).parent

Node = Callable[..., Process]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages installed."""
    folder = install_packages(HERE, tmp_path_factory.mktemp("node") / "project")
    static = ROOT / "app/web/static"
    shutil.copy(static / "notifymux.js", folder)
    shutil.copytree(static / "notifymux", folder / "notifymux")
    return folder


@pytest.fixture
def node(project: Path) -> Iterator[Node]:
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(Process(["node", *arguments], project, {}))


@pytest.fixture
def app(settings: dict[str, str], start_listener: StartListener, start_app: StartApp) -> App:
    start_listener(settings).wait_until_aligned()
    return start_app(settings, workers=2).wait_until_ready()


def notify(connection: psycopg.Connection, numbers: range) -> None:
    for number in numbers:
        payload = json.dumps({"match_id": 7, "data": {"n": number}})
        connection.execute("SELECT pg_notify('match_change', %s)", [payload])


def kill_workers(app: App) -> None:
    for worker in psutil.Process(app.pid).children():
        os.kill(worker.pid, signal.SIGKILL)


def messages(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.lines if line.startswith('{"') and '"type"' in line]


def received(process: Process) -> list[int]:
    return [message["data"]["n"] for message in messages(process) if message["type"] == "match-update"]


def has_loaded(process: Process, times: int) -> bool:
    assert process.running, process.log
    return len([message for message in messages(process) if message["type"] == "initial-load"]) >= times


def assert_recovers(app: App, connection: psycopg.Connection, process: Process) -> None:
    """Assert that the client receives every event once and in order although every worker is killed in between."""
    wait_until(lambda: has_loaded(process, 1), what=process.log)
    notify(connection, range(50))
    wait_until(lambda: received(process) == list(range(50)), what=process.log)
    kill_workers(app)
    notify(connection, range(50, 100))
    wait_until(lambda: has_loaded(process, 2), 40, process.log)
    notify(connection, range(100, 150))
    wait_until(lambda: len(received(process)) >= 150, what=process.log)
    assert received(process) == list(range(150))
    loads = [message["recovered"] for message in messages(process) if message["type"] == "initial-load"]
    assert loads == [False] + [True] * (len(loads) - 1)


def test_an_event_source_reconnects_and_misses_no_event(app: App, connection: psycopg.Connection, node: Node) -> None:
    process = node("eventsource.mjs", f"http://127.0.0.1:{app.port}/api/matches/7/events")
    assert_recovers(app, connection, process)
    for message in messages(process):
        assert message["lastEventId"] == message["id"]


def test_notifymux_js_reconnects_and_misses_no_event(app: App, connection: psycopg.Connection, node: Node) -> None:
    options = {"match": 7, "base": f"http://127.0.0.1:{app.port}/", "clientId": "node"}
    assert_recovers(app, connection, node("notifymux.mjs", "./notifymux.js", json.dumps(options)))


def test_notifymux_js_resumes_a_match_of_several_from_its_own_position(
    app: App, connection: psycopg.Connection, node: Node
) -> None:
    options = {"matches": [7], "base": f"http://127.0.0.1:{app.port}/"}
    assert_recovers(app, connection, node("notifymux.mjs", "./notifymux.js", json.dumps(options)))


@pytest.mark.parametrize("client", ["notifymux.js", "EventSource"])
def test_a_client_of_a_pod_that_drains_is_turned_away_by_it_and_resumes_on_another(
    client: str,
    settings: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
    node: Node,
) -> None:
    start_listener(settings).wait_until_aligned()
    ending = start_app(settings | {"DRAIN_SECONDS": "60"}).wait_until_ready()
    other = start_app(settings | {"POD_NAME": "other"}).wait_until_ready()
    with Proxy(ending.port) as balancer, ExitStack() as stack:
        base = f"http://127.0.0.1:{balancer.port}/"
        if client == "notifymux.js":
            process = node("notifymux.mjs", "./notifymux.js", json.dumps({"match": 7, "base": base}))
        else:
            process = node("eventsource.mjs", f"{base}api/matches/7/events")
        wait_until(lambda: has_loaded(process, 1), what=process.log)
        notify(connection, range(20))
        wait_until(lambda: received(process) == list(range(20)), what=process.log)
        for number in range(30):  # they keep the pod draining; whoever came first goes first
            stack.enter_context(ending.client(7, f"other{number}"))
        ending.signal(signal.SIGTERM)
        ending.wait_for_log("refused: this worker ends")
        balancer.redirect_to(other.port)
        notify(connection, range(20, 40))
        wait_until(lambda: has_loaded(process, 2), 10, process.log)
        wait_until(lambda: len(received(process)) >= 40, what=process.log)
    assert received(process) == list(range(40))
    kinds = [message["type"] for message in messages(process) if message["type"] != "match-update"]
    assert kinds == ["initial-load"] * 2
    assert [message["recovered"] for message in messages(process) if message["type"] == "initial-load"] == [False, True]


def test_the_documented_client_with_ws_reconnects_and_misses_no_event(
    app: App, connection: psycopg.Connection, node: Node, project: Path
) -> None:
    code = block(PROTOCOL, "js", "import WebSocket")
    code = code.replace("127.0.0.1:8000/api/matches/ws/id/1/", f"127.0.0.1:{app.port}/api/matches/ws/id/7/")
    printed = "console.log(message.type, message.id, message.data);"
    assert printed in code
    (project / "example.mjs").write_text(code.replace(printed, "console.log(JSON.stringify(message));"))
    assert_recovers(app, connection, node("example.mjs"))


def test_notifymux_js_reports_a_refused_token_and_stops(
    settings: dict[str, str], start_app: StartApp, node: Node
) -> None:
    app = start_app(settings | {"WS_JWT_SECRET": "a secret that is long enough for HS256"})
    wait_until(lambda: app.get("/healthz")[0] == 200)
    options = {"match": 7, "base": f"http://127.0.0.1:{app.port}/", "clientId": "node", "token": "wrong"}
    process = node("notifymux.mjs", "./notifymux.js", json.dumps(options))
    process.wait_for_log('"refused"')
    assert "the token is not valid" in process.log
    assert process.exit_code() == 0, "no timer is left that would reconnect"


def test_notifymux_js_stops_when_its_client_id_connects_again(
    settings: dict[str, str], start_listener: StartListener, start_app: StartApp, node: Node
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    options = {"match": 7, "base": f"http://127.0.0.1:{app.port}/", "clientId": "same"}
    process = node("notifymux.mjs", "./notifymux.js", json.dumps(options))
    wait_until(lambda: has_loaded(process, 1), what=process.log)
    with app.client(7, "same"):
        process.wait_for_log('"replaced"')
        assert process.exit_code() == 0, "no timer is left that would reconnect"
