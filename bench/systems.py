"""What is measured: ways from NOTIFY to WebSocket clients, each started in a place of its own."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.clients import Clients, on_each_worker
from bench.cpu import Meter
from bench.environment import Environment, Place
from bench.events import MATCH, Emitter
from tests.support.process import Process
from tests.support.programs import App, Listener
from tests.support.servers import free_port
from tests.support.waiting import wait_until

WORKERS = 4


@dataclass(frozen=True)
class System:
    """A way that is up.

    Args:
        name: the configuration's, in the figures.
        place: where it hears.
        port: where it serves WebSockets.
        path: `{}` in it takes a client's name.
        parts: the process at the head of each of its parts.
        servers: whose work belongs to it.
    """

    name: str
    place: Place
    port: int
    path: str
    parts: Mapping[str, int]
    servers: Sequence[str] = ("postgres",)

    def client_path(self, number: int) -> str:
        """The path that the n-th client asks for."""
        return self.path.format(number)


Start = Callable[[Environment, int], AbstractContextManager[System]]


@contextmanager
def through_redis(arena: Environment, workers: int = WORKERS) -> Iterator[System]:
    """Our Redis mode: one listener, and workers that hear Redis."""
    with arena.place() as place:
        settings = place.settings | {"USE_REDIS_NOTIFIER": "true"}
        with Listener(place.folder, settings) as listener, App(place.folder, settings, workers) as app:
            listener.aligned()
            parts = {"workers": app.ready().pid, "listener": listener.pid}
            yield System("redis", place, app.port, _OURS, parts, ("postgres", "redis"))


@contextmanager
def direct(arena: Environment, workers: int = WORKERS) -> Iterator[System]:
    """Our PostgreSQL mode: the workers LISTEN directly."""
    with arena.place() as place, App(place.folder, place.settings, workers) as app:
        yield System("postgres", place, app.ready().port, _OURS, {"workers": app.pid})


_OURS = f"/api/matches/ws/id/{MATCH}/{{}}/"


@contextmanager
def plain_listen(arena: Environment, workers: int = WORKERS) -> Iterator[System]:
    """What people write: psycopg's `notifies()` in each worker, Starlette, uvicorn under gunicorn, `send_text`."""
    with (
        arena.place() as place,
        gunicorn("bench.programs.plain_listen:app", workers, place.folder, place.environment) as (port, process),
    ):
        yield System("plain-listen", place, port, f"/{MATCH}/{{}}", {"workers": process.pid})


@contextmanager
def gunicorn(app: str, workers: int, folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[int, Process]]:
    """An ASGI application as most people serve it; its port and its process."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("gunicorn")), "--no-control-socket", "-b", f"127.0.0.1:{port}"]
    command += ["-k", "uvicorn_worker.UvicornWorker", "-w", str(workers), app]
    with Process(command, folder, environment) as process:
        wait_until(lambda: process.log.count("startup complete") == workers, 30, process.log)
        yield port, process


@contextmanager
def picows(arena: Environment, workers: int = 1) -> Iterator[System]:
    """The fastest WebSocket server there is for asyncio, with psycopg's `notifies()`, in one process."""
    assert workers == 1
    with arena.place() as place:
        port = free_port()
        command = [sys.executable, "-m", "bench.programs.picows_server", str(port)]
        with Process(command, place.folder, place.environment) as process:
            process.logged("listening")
            yield System("picows", place, port, f"/{MATCH}/{{}}", {"workers": process.pid})


class Watched:
    """A system, a session that notifies it, and clients.

    Args:
        system: a way that is up.
        clients: of it.
    """

    def __init__(self, system: System, clients: Clients, arena: Environment) -> None:
        self.system, self.clients, self._arena = system, clients, arena
        self.emitter = Emitter(system.place.database)

    @classmethod
    def on_each_worker(cls, system: System, arena: Environment, workers: int = WORKERS) -> Self:
        """With one client on each worker, all of which have heard an event."""
        watched = cls(system, on_each_worker(system.port, system.client_path, workers), arena)
        watched.heard()
        return watched

    @property
    def name(self) -> str:
        """The configuration's."""
        return self.system.name

    def heard(self) -> None:
        """Notifies until every client has heard."""
        for _ in range(100):
            self.emitter.once()
            if self.clients.read_until(self.emitter.last, 0.3):
                self.clients.pump()
                return
        raise AssertionError(f"{self.name}: not every client hears")

    def meter(self) -> Meter:
        """CPU time from now on, of the system's parts and the servers."""
        servers = {name: pid for name, pid in self._arena.parts.items() if name in self.system.servers}
        return Meter({**self.system.parts, **servers})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clients.close()
        self.emitter.__exit__()
