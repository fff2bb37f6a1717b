"""The systems under test, which deliver notifications to WebSocket clients, each in its own place."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import psycopg

from bench.clients import Clients, on_each_worker
from bench.cpu import CpuMeter
from bench.environment import Environment, Place
from bench.events import CHANGED_TABLE, EMIT_WITH_A_ROW, MATCH, NOTIFY, NOTIFY_WITH_A_ROW, Emitter, Way, paced
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
        way: how events are sent to it.
    """

    name: str
    place: Place
    port: int
    path: str
    parts: Mapping[str, int]
    servers: Sequence[str] = ("postgres",)
    matches: int = 1
    way: Way = NOTIFY

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
def by_notify(environment: Environment, workers: int = WORKERS) -> Iterator[System]:
    """The same, whose events are sent by commits that wait for the disk."""
    with through_redis(environment, workers) as system:
        _make_changed_table(system.place)
        yield replace(system, name="notify", way=NOTIFY_WITH_A_ROW)


@contextmanager
def by_the_wal(
    environment: Environment, workers: int = WORKERS, settings: Mapping[str, str] | None = None
) -> Iterator[System]:
    """The same with SOURCE=wal: the listener reads a replication slot. `settings` are added to the pod's."""
    with (
        environment.place() as place,
        _slot(place) as slot,
        _redis_mode(place, place.folder, workers, slot | dict(settings or {})) as (app, parts),
    ):
        wait_until(lambda: _fed(app) == workers, what="the workers follow the feed")
        _make_changed_table(place)
        yield System("wal", place, app.port, _PATH, parts, ("postgres", "redis"), way=EMIT_WITH_A_ROW)


def _make_changed_table(place: Place) -> None:
    with closing(psycopg.connect(place.database, autocommit=True)) as connection:
        connection.execute(CHANGED_TABLE)


@contextmanager
def _slot(place: Place) -> Iterator[dict[str, str]]:
    """The settings of a program that reads a replication slot of its own, which is dropped when the block ends."""
    name = place.namespace
    yield {"SOURCE": "wal", "WAL_SLOT": name}
    with closing(psycopg.connect(place.database, autocommit=True)) as connection:
        looking = ("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", [name])
        wait_until(lambda: connection.execute(*looking).fetchall() == [(None,)], what="nobody reads the slot")
        connection.execute("SELECT pg_drop_replication_slot(%s)", [name])


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
def _redis_mode(
    place: Place, workers_folder: Path, workers: int, more: dict[str, str] | None = None
) -> Iterator[tuple[App, dict[str, int]]]:
    settings = place.settings | {"USE_REDIS_NOTIFIER": "true"} | (more or {})
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
    """A system, its clients, and a session that sends events."""

    def __init__(self, system: System, clients: Clients, environment: Environment) -> None:
        self.system, self.clients, self._environment = system, clients, environment
        self.emitter = Emitter(system.place.database, system.way, system.matches)

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
        with paced(self.system.place.database, first, events, rate, self.system.way) as times:
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


@contextmanager
def all_measured(environment: Environment, starts: Iterable[StartSystem]) -> Iterator[list[MeasuredSystem]]:
    """Start systems, and connect a client to each worker of each."""
    with ExitStack() as stack:
        systems = [stack.enter_context(start(environment, WORKERS)) for start in starts]
        yield [
            stack.enter_context(MeasuredSystem.with_client_on_each_worker(system, environment)) for system in systems
        ]
