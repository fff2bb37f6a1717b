"""The product's programs, as supervisord runs them, and clients of theirs."""

import http.client
import json
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any, Self
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.process import Process
from tests.support.servers import free_port
from tests.support.waiting import wait_until


class Listener(Process):
    """`python -m listener`."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__([sys.executable, "-m", "listener"], folder, settings)

    def aligned(self, times: int = 1, within: float = 20.0) -> Self:
        """Waits until it has begun an epoch or found its place, for the `times`-th time."""
        wait_until(
            lambda: sum(" begins after " in line or " aligned at " in line for line in self.lines) >= times,
            within,
            lambda: f"aligned {times} times:\n{self.log}",
        )
        return self


class Verification(Process):
    """`python -m listener verify`, which has ended."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__([sys.executable, "-m", "listener", "verify", "--json"], folder, settings)
        self.code = self.exit_code(60)
        said = json.loads(self.log)
        assert said["ok"] == (self.code == 0), self.log
        self.checks: dict[str, dict[str, str | None]] = {check.pop("check"): check for check in said["checks"]}
        assert len(self.checks) == len(said["checks"]), self.log

    def of(self, status: str) -> list[str]:
        """The checks that ended so."""
        return [name for name, check in self.checks.items() if check["status"] == status]

    def text(self, name: str) -> str:
        """What one check says."""
        return str(self.checks[name]["text"])

    def remedy(self, name: str) -> str:
        """What is to be done about it."""
        return str(self.checks[name]["remedy"])


class App(Process):
    """gunicorn and its workers; `factory` makes the application that they serve."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], workers: int = 1, factory: str = "app.main:app"
    ) -> None:
        self.port = free_port()
        served = {"HOST": "127.0.0.1", "PORT": str(self.port), "WEB_CONCURRENCY": str(workers)}
        command = [str(Path(sys.executable).with_name("gunicorn")), "-c", "python:app.gunicorn_conf", factory]
        super().__init__(command, folder, {**served, **settings})

    def get(self, path: str) -> tuple[int, Any]:
        """A path's status and JSON body; 0 and None if nobody answers."""
        return get(self.port, path)

    def ready(self, within: float = 20.0) -> Self:
        """Waits until a worker says that it is ready."""
        wait_until(lambda: self.get("/readyz")[0] == 200, within, lambda: f"ready: {self.get('/readyz')}\n{self.log}")
        return self

    def client(self, match: object, name: str = "c", query: str = "", **options: Any) -> "Client":
        return Client(self.port, match, name, query, **options)

    def stream(self, match: object, query: str = "", headers: Mapping[str, str] | None = None) -> "EventStream":
        return EventStream(self.port, match, query, headers)

    def client_of_each_worker(self, match: object, workers: int) -> dict[int, "Client"]:
        """One client on each worker, by the worker's process id."""
        clients: dict[int, Client] = {}
        for number in range(200):
            client = self.client(match, f"client-{number}")
            if client.worker in clients:
                client.close()
            clients.setdefault(client.worker, client)
            if len(clients) == workers:
                return clients
        raise AssertionError(f"{len(clients)} of {workers} workers took a client")


def get(port: int, path: str) -> tuple[int, Any]:
    """A path's status and JSON body; 0 and None if nobody answers."""
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


class Heard:
    """What a client has heard."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The messages of some types."""
        return [message for message in list(self.messages) if message["type"] in kinds]

    @property
    def updates(self) -> list[dict[str, Any]]:
        """The messages that are events."""
        return [message for message in list(self.messages) if "operation" in message]

    def heard(self, count: int, within: float = 20.0) -> list[dict[str, Any]]:
        """Waits for `count` updates, and returns all."""
        wait_until(lambda: len(self.updates) >= count, within, f"{count} updates, {len(self.updates)} came")
        return self.updates

    def loaded(self) -> dict[str, Any]:
        """Waits for the initial load."""
        return wait_until(lambda: self.of("initial-load"))[0]


class Client(Heard):
    """A WebSocket client of one match that keeps every message, read in a thread of its own."""

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
        url = f"ws://127.0.0.1:{port}/api/matches/ws/id/{quote(str(match))}/{name}/{query}"
        self.socket: ClientConnection = connect(
            url, open_timeout=10, max_size=None, legacy=True, additional_headers=headers
        )
        assert self.socket.response
        self.worker = int(self.socket.response.headers["x-worker"])
        super().__init__()
        self.code: int | None = None
        self._pongs = pongs
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for text in self.socket:
                message = json.loads(text)
                if message["type"] == "ping" and self._pongs:
                    self.socket.send('{"type":"pong"}')
                self.messages.append(message)
        except ConnectionClosed:
            pass
        finally:
            self.code = self.socket.close_code

    def closed(self, within: float = 20.0) -> int:
        """Waits until the other side closes; the code."""
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


class EventStream(Heard):
    """The same over server-sent events; keeps every line as well."""

    def __init__(self, port: int, match: object, query: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._connection.request("GET", f"/api/matches/{quote(str(match))}/events{query}", headers=dict(headers or {}))
        self._socket = self._connection.sock
        self.response = self._connection.getresponse()
        self.worker = int(self.response.headers.get("x-worker", 0))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError, http.client.HTTPException):  # it was cut off, or closed from here
            for line in self.response:
                self.lines.append(line.decode().rstrip("\n"))
                if line.startswith(b"data: "):
                    self.messages.append(json.loads(line[6:]))

    def ended(self, within: float = 20.0) -> None:
        """Waits until the other side ends it."""
        self._thread.join(within)
        assert not self._thread.is_alive()

    def close(self) -> None:
        with suppress(OSError):  # the other side was faster
            self._socket.shutdown(SHUT_RDWR)
        self._thread.join(5)
        self.response.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
