"""The systems under test, which deliver notifications to WebSocket clients, each in its own place."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.clients import Clients, on_each_worker
from bench.cpu import CpuMeter
from bench.environment import Environment, Place
from bench.events import MATCH, Emitter, paced
from tests.support.process import Process
from tests.support.programs import App, Listener
from tests.support.servers import free_port
from tests.support.waiting import wait_until

WORKERS = 4
_SEVERAL = 12  # matches that a client hears
_TIMEOUT_SECONDS = 5.0  # without an event


@dataclass(frozen=True)
class System:
    """A running system.

    Args:
        name: of the configuration, in the figures.
        place: the database and the namespace that it uses.
        port: of its WebSocket endpoint.
        path: of its WebSocket endpoint; `{}` is replaced by the client's number.
        parts: the main process of each part, by name.
        servers: the servers whose CPU time belongs to it.
        matches: of which a client hears so many, and of which the events are.
    """

    name: str
    place: Place
    port: int
    path: str
    parts: Mapping[str, int]
    servers: Sequence[str] = ("postgres",)
    matches: int = 1

    def client_path(self, number: int) -> str:
        """Return the path of the n-th client."""
        return self.path.format(number)


StartSystem = Callable[[Environment, int], AbstractContextManager[System]]


@contextmanager
def through_redis(environment: Environment, workers: int = WORKERS) -> Iterator[System]:
    """Redis mode of notifymux: one listener, which feeds the workers of its pod."""
    with environment.place() as place, _redis_mode(place, place.folder, workers) as (app, parts):
        wait_until(lambda: _fed(app) == workers, what="the workers follow the feed")
        yield System("redis", place, app.port, _PATH, parts, ("postgres", "redis"))


@contextmanager
def with_several_matches(environment: Environment, workers: int = WORKERS) -> Iterator[System]:
    """The same with connections for many matches, of which each client hears twelve."""
    with environment.place() as place, _redis_mode(place, place.folder, workers) as (app, parts):
        wait_until(lambda: _fed(app) == workers, what="the workers follow the feed")
        path, servers = "/api/matches/ws/{}/", ("postgres", "redis")
        yield System(f"redis-{_SEVERAL}-matches", place, app.port, path, parts, servers, _SEVERAL)


@contextmanager
def without_feed(environment: Environment, workers: int = WORKERS) -> Iterator[System]:
    """The same with the workers in another pod, which has no listener: they hear Redis."""
    with environment.place() as place:
        folder = place.folder / "workers"
        folder.mkdir()
        with _redis_mode(place, folder, workers) as (app, parts):
            yield System("redis-without-feed", place, app.port, _PATH, parts, ("postgres", "redis"))


@contextmanager
def _redis_mode(place: Place, workers_folder: Path, workers: int) -> Iterator[tuple[App, dict[str, int]]]:
    settings = place.settings | {"USE_REDIS_NOTIFIER": "true"}
    with Listener(place.folder, settings) as listener, App(workers_folder, settings, workers) as app:
        listener.wait_until_aligned()
        yield app, {"workers": app.wait_until_ready().pid, "listener": listener.pid}


def _fed(app: App) -> int:
    _, status = app.get("/api/status")
    return sum(bool(worker["fed"]) for worker in status["workers"])


@contextmanager
def direct(environment: Environment, workers: int = WORKERS) -> Iterator[System]:
    """Direct mode of notifymux: each worker LISTENs."""
    with environment.place() as place, App(place.folder, place.settings, workers) as app:
        yield System("postgres", place, app.wait_until_ready().port, _PATH, {"workers": app.pid})


_PATH = f"/api/matches/ws/id/{MATCH}/{{}}/"


@contextmanager
def plain_listen(environment: Environment, workers: int = WORKERS) -> Iterator[System]:
    """The usual implementation: psycopg's `notifies()` in each worker, Starlette, uvicorn under gunicorn."""
    with (
        environment.place() as place,
        gunicorn("bench.programs.plain_listen:app", workers, place.folder, place.environment) as (port, process),
    ):
        yield System("plain-listen", place, port, f"/{MATCH}/{{}}", {"workers": process.pid})


@contextmanager
def gunicorn(app: str, workers: int, folder: Path, variables: Mapping[str, str]) -> Iterator[tuple[int, Process]]:
    """Serve an ASGI application with gunicorn and uvicorn workers; yield its port and its process."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("gunicorn")), "--no-control-socket", "-b", f"127.0.0.1:{port}"]
    command += ["-k", "uvicorn_worker.UvicornWorker", "-w", str(workers), app]
    with Process(command, folder, variables) as process:
        wait_until(lambda: process.log.count("startup complete") == workers, 30, process.log)
        yield port, process


@contextmanager
def picows(environment: Environment, workers: int = 1) -> Iterator[System]:
    """picows, a fast WebSocket server for asyncio, with psycopg's `notifies()`, in one process."""
    assert workers == 1
    with environment.place() as place:
        port = free_port()
        command = [sys.executable, "-m", "bench.programs.picows_server", str(port)]
        with Process(command, place.folder, place.environment) as process:
            process.wait_for_log("listening")
            yield System("picows", place, port, f"/{MATCH}/{{}}", {"workers": process.pid})


class MeasuredSystem:
    """A system, its clients, and a session that notifies."""

    def __init__(self, system: System, clients: Clients, environment: Environment) -> None:
        self.system, self.clients, self._environment = system, clients, environment
        self.emitter = Emitter(system.place.database, system.matches)

    @classmethod
    def with_client_on_each_worker(cls, system: System, environment: Environment, workers: int = WORKERS) -> Self:
        """Connect one client to each worker, and wait until all of them receive events."""
        measured = cls(system, on_each_worker(system.port, system.client_path, workers), environment)
        measured.wait_until_receiving()
        return measured

    @property
    def name(self) -> str:
        """The name of the configuration."""
        return self.system.name

    def wait_until_receiving(self) -> None:
        """Notify until every client has received an event."""
        for _ in range(100):
            self.emitter.once()
            if self.clients.read_until(self.emitter.last, 0.3):
                self.clients.discard()
                return
        raise AssertionError(f"{self.name}: not every client receives events")

    def notify_paced(self, rate: int, seconds: float) -> dict[int, float]:
        """Notify at a steady rate while the clients read; return the time at which each event was sent, by serial."""
        emitter, events = self.emitter, int(rate * seconds)
        first, emitter.last = emitter.last + 1, emitter.last + events
        with paced(self.system.place.database, first, events, rate) as times:
            self.clients.read_until(emitter.last, _TIMEOUT_SECONDS)
            return dict(zip(range(first, emitter.last + 1), times(), strict=True))

    def cpu_meter(self) -> CpuMeter:
        """Start measuring the CPU time of the system's parts and the servers."""
        servers = {name: pid for name, pid in self._environment.parts.items() if name in self.system.servers}
        return CpuMeter({**self.system.parts, **servers})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clients.close()
        self.emitter.__exit__()
