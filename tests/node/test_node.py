"""Node's clients, and the browsers' own on Node, over the death of the workers that serve them."""

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
from tests.support.npm import installed
from tests.support.process import ROOT, Process
from tests.support.programs import App
from tests.support.waiting import wait_until

HERE = Path(__file__).parent

Node = Callable[..., Process]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages installed."""
    folder = installed(HERE, tmp_path_factory.mktemp("node") / "project")
    shutil.copy(ROOT / "app/web/static/notifymux.js", folder)
    return folder


@pytest.fixture
def node(project: Path) -> Iterator[Node]:
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(Process(["node", *arguments], project, {}))


@pytest.fixture
def app(settings: dict[str, str], start_listener: StartListener, start_app: StartApp) -> App:
    start_listener(settings).aligned()
    return start_app(settings, workers=2).ready()


def notify(connection: psycopg.Connection, numbers: range) -> None:
    for number in numbers:
        payload = json.dumps({"match_id": 7, "data": {"n": number}})
        connection.execute("SELECT pg_notify('match_change', %s)", [payload])


def kill_the_workers(app: App) -> None:
    for worker in psutil.Process(app.pid).children():
        os.kill(worker.pid, signal.SIGKILL)


def messages(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.lines if line.startswith('{"') and '"type"' in line]


def heard(process: Process) -> list[int]:
    return [message["data"]["n"] for message in messages(process) if message["type"] == "match-update"]


def has_loaded(process: Process, times: int) -> bool:
    assert process.running, process.log
    return len([message for message in messages(process) if message["type"] == "initial-load"]) >= times


def comes_back(app: App, connection: psycopg.Connection, process: Process) -> None:
    """It hears every event once and in order, though every worker dies in between."""
    wait_until(lambda: has_loaded(process, 1), what=process.log)
    notify(connection, range(50))
    wait_until(lambda: heard(process) == list(range(50)), what=process.log)
    kill_the_workers(app)
    notify(connection, range(50, 100))
    wait_until(lambda: has_loaded(process, 2), 40, process.log)
    notify(connection, range(100, 150))
    wait_until(lambda: len(heard(process)) >= 150, what=process.log)
    assert heard(process) == list(range(150))
    loads = [message["recovered"] for message in messages(process) if message["type"] == "initial-load"]
    assert loads == [False] + [True] * (len(loads) - 1)


def test_an_event_source_comes_back_by_itself_and_misses_nothing(
    app: App, connection: psycopg.Connection, node: Node
) -> None:
    process = node("eventsource.mjs", f"http://127.0.0.1:{app.port}/api/matches/7/events")
    comes_back(app, connection, process)
    for message in messages(process):
        assert message["lastEventId"] == message["id"]


def test_the_browsers_client_comes_back_by_itself_and_misses_nothing(
    app: App, connection: psycopg.Connection, node: Node
) -> None:
    options = {"match": 7, "base": f"http://127.0.0.1:{app.port}/", "clientId": "node"}
    comes_back(app, connection, node("notifymux.mjs", "./notifymux.js", json.dumps(options)))


def test_the_pages_example_with_ws_comes_back_and_misses_nothing(
    app: App, connection: psycopg.Connection, node: Node, project: Path
) -> None:
    code = block(PROTOCOL, "js", "import WebSocket")
    code = code.replace("127.0.0.1:8000/api/matches/ws/id/1/", f"127.0.0.1:{app.port}/api/matches/ws/id/7/")
    printed = "console.log(message.type, message.id, message.data);"
    assert printed in code
    (project / "example.mjs").write_text(code.replace(printed, "console.log(JSON.stringify(message));"))
    comes_back(app, connection, node("example.mjs"))


def test_the_browsers_client_says_that_its_token_is_refused(
    settings: dict[str, str], start_app: StartApp, node: Node
) -> None:
    app = start_app(settings | {"WS_JWT_SECRET": "a secret that is long enough for HS256"})
    wait_until(lambda: app.get("/healthz")[0] == 200)
    options = {"match": 7, "base": f"http://127.0.0.1:{app.port}/", "clientId": "node", "token": "wrong"}
    process = node("notifymux.mjs", "./notifymux.js", json.dumps(options))
    process.logged('"refused"')
    assert "the token is not valid" in process.log
    assert process.exit_code() == 0, "nothing is left that would try again"


def test_the_browsers_client_gives_way_to_its_own_client_id(
    settings: dict[str, str], start_listener: StartListener, start_app: StartApp, node: Node
) -> None:
    start_listener(settings).aligned()
    app = start_app(settings).ready()
    options = {"match": 7, "base": f"http://127.0.0.1:{app.port}/", "clientId": "same"}
    process = node("notifymux.mjs", "./notifymux.js", json.dumps(options))
    wait_until(lambda: has_loaded(process, 1), what=process.log)
    with app.client(7, "same"):
        process.logged('"replaced"')
        assert process.exit_code() == 0, "nothing is left that would try again"
