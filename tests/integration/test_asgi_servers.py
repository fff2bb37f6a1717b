"""`app.main:app` under servers that know nothing of this project."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.conftest import StartListener
from tests.support.process import ROOT, Process, environment
from tests.support.programs import App
from tests.support.servers import free_port

SERVERS = {
    "uvicorn": ["uvicorn", "app.main:app", "--host=127.0.0.1", "--port={port}"],
    "hypercorn": ["hypercorn", "app.main:app", "--bind=127.0.0.1:{port}"],
    "gunicorn with uvicorn's worker": [
        "gunicorn",
        "app.main:app",
        "--worker-class=uvicorn_worker.UvicornWorker",
        "--bind=127.0.0.1:{port}",
    ],
    "gunicorn with its own worker": ["gunicorn", "app.main:app", "--worker-class=asgi", "--bind=127.0.0.1:{port}"],
    "gunicorn without anything, in the project's folder": ["gunicorn", "app.main:app"],
}


class ServedApp(App):
    """The application under a server's own command."""

    def __init__(self, server: str, folder: Path, settings: dict[str, str]) -> None:
        self.port = free_port()
        if "folder" in server:
            shutil.copy(ROOT / "gunicorn.conf.py", folder)
        address = {"HOST": "127.0.0.1", "PORT": str(self.port), "WEB_CONCURRENCY": "1"}
        Process.__init__(self, command(server, self.port), folder, address | settings)


def command(server: str, port: int) -> list[str]:
    name, *arguments = [part.format(port=port) for part in SERVERS[server]]
    return [str(Path(sys.executable).with_name(name)), *arguments]


@pytest.mark.parametrize("server", SERVERS)
def test_the_application_serves_events_and_ends_under_any_asgi_server(
    server: str,
    tmp_path: Path,
    settings: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
) -> None:
    start_listener(settings).wait_until_aligned()
    with ServedApp(server, tmp_path, settings) as app:
        app.wait_until_ready()
        with app.client(1) as client, app.stream(1) as stream:
            for listening in (client, stream):
                listening.wait_for_initial_load()
            connection.execute("""SELECT pg_notify('match_change', '{"match_id": 1, "data": 5}')""")
            for listening in (client, stream):
                assert [update["data"] for update in listening.wait_for_updates(1)] == [5]
        assert app.get("/metrics")[0] == 200
        assert app.stop() in {0, -signal.SIGTERM}  # uvicorn ends with the signal that it got
    assert "Traceback" not in app.log


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_a_wrong_setting_ends_any_server_with_a_line(server: str, tmp_path: Path) -> None:
    result = subprocess.run(
        command(server, free_port()),
        cwd=tmp_path,
        env=environment({"PING_INTERVAL": "often"}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    # The server's own exit code; hypercorn's is 0 whatever happens.
    assert "notifymux: PING_INTERVAL='often': it takes seconds" in result.stderr
