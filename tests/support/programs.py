"""notifymux's programs, started as supervisord starts them, and clients of the application."""

import http.client
import json
import sys
import threading
import time
from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.event_stream import EventStreamReader
from tests.support.process import Process
from tests.support.servers import free_port
from tests.support.waiting import wait_until


class Listener(Process):
    """`python -m listener`."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__([sys.executable, "-m", "listener"], folder, settings)

    def wait_until_aligned(self, times: int = 1, within: float = 20.0) -> Self:
        """Wait until it has started an epoch or aligned with one, for the `times`-th time."""
        wait_until(
            lambda: sum(" begins after " in line or " aligned at " in line for line in self.lines) >= times,
            within,
            lambda: f"aligned {times} times:\n{self.log}",
        )
        return self


class Verification(Process):
    """`python -m listener verify --json`, run to its end."""

    def __init__(self, folder: Path, settings: Mapping[str, str], *options: str) -> None:
        super().__init__([sys.executable, "-m", "listener", "verify", "--json", *options], folder, settings)
        self.code = self.exit_code(60)
        result = json.loads(self.log)
        assert result["ok"] == (self.code == 0), self.log
        self.checks: dict[str, dict[str, str | None]] = {check.pop("check"): check for check in result["checks"]}
        assert len(self.checks) == len(result["checks"]), self.log

    def with_status(self, status: str) -> list[str]:
        """Return the names of the checks with this status."""
        return [name for name, check in self.checks.items() if check["status"] == status]

    def text(self, name: str) -> str:
        """Return the text of a check."""
        return str(self.checks[name]["text"])

    def remedy(self, name: str) -> str:
        """Return the remedy of a check."""
        return str(self.checks[name]["remedy"])


class App(Process):
    """gunicorn and its workers. `program` names the application."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], workers: int = 1, program: str = "app.main:app"
    ) -> None:
        self.port = free_port()
        address = {"HOST": "127.0.0.1", "PORT": str(self.port), "WEB_CONCURRENCY": str(workers)}
        command = [str(Path(sys.executable).with_name("gunicorn")), "-c", "python:app.gunicorn_conf", program]
        super().__init__(command, folder, {**address, **settings})

    def get(self, path: str) -> tuple[int, Any]:
        return get(self.port, path)

    def wait_until_ready(self, within: float = 20.0) -> Self:
        """Wait until a worker is ready."""
        wait_until(lambda: self.get("/readyz")[0] == 200, within, lambda: f"ready: {self.get('/readyz')}\n{self.log}")
        return self

    def client(self, match: object, name: str = "c", query: str = "", **options: Any) -> "Client":
        return Client(self.port, match, name, query, **options)

    def client_of_another_worker(self, than: Collection[int], match: object = 1, query: str = "") -> "Client":
        """Connect until a worker answers that is none of these processes; return that client."""
        found: list[Client] = []

        def connects() -> bool:
            client = self.client(match, "new", query)
            if client.worker in than:
                client.close()
                return False
            found.append(client)
            return True

        wait_until(connects, 40)
        return found[0]

    def stream(self, match: object, query: str = "", headers: Mapping[str, str] | None = None) -> "EventStream":
        return EventStream(self.port, match, query, headers)

    def client_of_each_worker(self, match: object, workers: int) -> dict[int, "Client"]:
        """Connect one client to each worker; return the clients by the worker's process id."""
        clients: dict[int, Client] = {}
        deadline = time.monotonic() + 40
        for number in count():
            client = self.client(match, f"client-{number}")
            if client.worker in clients:
                client.close()
            clients.setdefault(client.worker, client)
            if len(clients) == workers:
                break
            assert time.monotonic() < deadline, f"only {len(clients)} of {workers} workers accepted a client"
        return clients


def get(port: int, path: str) -> tuple[int, Any]:
    """Request a path; return the status and the body, parsed if it is JSON. Without an answer, return 0 and None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if "json" in response.getheader("content-type", "") else body
    except OSError:
        return 0, None
    finally:
        connection.close()


class ReceivedMessages:
    """The messages that a client has received."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def of_type(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the messages of some types."""
        return [message for message in list(self.messages) if message["type"] in kinds]

    @property
    def updates(self) -> list[dict[str, Any]]:
        """The messages that are events."""
        return [message for message in list(self.messages) if "operation" in message]

    def wait_for_updates(self, count: int, within: float = 20.0) -> list[dict[str, Any]]:
        """Wait for `count` updates; return all updates."""
        wait_until(lambda: len(self.updates) >= count, within, lambda: f"{count} updates, {len(self.updates)} received")
        return self.updates

    def wait_for_initial_load(self) -> dict[str, Any]:
        """Wait for the initial load, and return it."""
        return wait_until(lambda: self.of_type("initial-load"))[0]


class Client(ReceivedMessages):
    """A WebSocket client of one match, which keeps every message. A thread reads and answers pings."""

    def __init__(
        self,
        port: int,
        match: object,
        name: str = "c",
        query: str = "",
        *,
        pongs: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._url = f"ws://127.0.0.1:{port}/api/matches/{self._path(match, name)}"
        self._headers = headers
        self._connect(query)
        super().__init__()
        self.code: int | None = None
        self._pongs = pongs
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _path(self, match: object, name: str) -> str:
        return f"ws/id/{quote(str(match), safe='')}/{name}/"

    def _connect(self, query: str) -> None:
        self.socket: ClientConnection = connect(
            self._url + query, open_timeout=10, max_size=None, legacy=True, additional_headers=self._headers
        )
        assert self.socket.response
        self.worker = int(self.socket.response.headers["x-worker"])

    def _read(self) -> None:
        try:
            for text in self.socket:
                self._on_message(json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            self.code = self.socket.close_code

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "ping" and self._pongs:
            self.socket.send('{"type":"pong"}')
        self.messages.append(message)

    def wait_until_closed(self, within: float = 20.0) -> int:
        """Wait until the server closes the connection; return the close code."""
        self._thread.join(within)
        assert self.code is not None
        return self.code

    def close(self) -> None:
        self.socket.close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EventStream(ReceivedMessages, EventStreamReader):
    """A client of one match over server-sent events, which keeps every message and every line."""

    def __init__(self, port: int, match: object, query: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        ReceivedMessages.__init__(self)
        EventStreamReader.__init__(self, port, f"/api/matches/{quote(str(match), safe='')}/events{query}", headers)
        self.worker = int(self.response.headers.get("x-worker", 0))

    def _on_line(self, line: bytes) -> None:
        self.lines.append(line.decode().rstrip("\n"))
        if line.startswith(b"data: "):
            self.messages.append(json.loads(line[6:]))
