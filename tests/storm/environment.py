"""A listener, workers, and many clients that disconnect and reconnect at once."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil
import psycopg

from tests.support.process import ROOT, environment
from tests.support.programs import App, Listener
from tests.support.waiting import wait_until

TABLE = """
CREATE TABLE storm (match_id text PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE FUNCTION storm_snapshot(id text) RETURNS json LANGUAGE plpgsql AS $$ BEGIN
    PERFORM nextval('storm_queries_' || id), pg_sleep({query_seconds});
    RETURN (SELECT json_build_object('n', n) FROM storm WHERE match_id = id);
END $$;
"""
EVENT_IN_EACH_MATCH = """
UPDATE storm SET n = n + 1 RETURNING pg_notify('match_change', json_build_object(
    'match_id', match_id, 'operation', 'UPDATE', 'data', json_build_object('n', n))::text)
"""


class Storm(NamedTuple):
    """The figures of one storm; times in seconds from its start."""

    name: str
    half: float  # until half of the clients were served
    all: float
    recovered: int  # clients that resumed without a snapshot
    snapshots: int  # clients that got a snapshot
    queries: int  # snapshot queries of the match with the most
    losses: Mapping[str, int]  # connections lost before they were served, by reason


class Gap(NamedTuple):
    """The figures of one gap; times in seconds from the first `resync`."""

    half: float  # until half of the clients had a new snapshot
    all: float
    stale: int  # clients that were told meanwhile that their state may be old
    connections: int  # the most that snapshots had at once
    memory: int  # the most that all workers together had, PSS in bytes


class WorkerMemory(NamedTuple):
    """The memory of all workers together in bytes (PSS), before and after the clients connect."""

    before: int
    after: int


class Environment:
    """The listener, the workers and the clients, which run while the block runs.

    Args:
        folder: the programs' working directory.
        database: the connection string of an empty database.
        settings: of both programs.
        clients: the number of clients, which run in their own process.
        workers: the number of workers.
        matches: the number of matches; each has the same number of clients.
        rate: events per second in each match during a storm.
        query_seconds: how long a snapshot query takes.
    """

    def __init__(
        self,
        folder: Path,
        database: str,
        settings: Mapping[str, str],
        clients: int,
        workers: int,
        matches: int,
        rate: float = 1.0,
        query_seconds: float = 0.0,
    ) -> None:
        self.clients, self.workers, self._matches, self._rate = clients, workers, matches, rate
        self._database, self._folder, self._query_seconds = database, folder, query_seconds
        self._settings = {**settings, "SNAPSHOT_QUERY": "SELECT storm_snapshot(%(match_id)s)"}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._connection = stack.enter_context(closing(psycopg.connect(self._database, autocommit=True)))
            self._connection.execute(TABLE.replace("{query_seconds}", str(self._query_seconds)).encode())
            for match in range(self._matches):
                self._connection.execute(f"INSERT INTO storm VALUES ('{match}')".encode())
                self._connection.execute(f"CREATE SEQUENCE storm_queries_{match} MINVALUE 0".encode())
                self._connection.execute("SELECT nextval(%s)", [f"storm_queries_{match}"])
            self._listener = stack.enter_context(Listener(self._folder, self._settings)).wait_until_aligned()
            self.app = stack.enter_context(App(self._folder, self._settings, self.workers)).wait_until_ready()
            wait_until(lambda: [self.app.get("/readyz")[0] for _ in range(8)] == [200] * 8)
            self._client_process = stack.enter_context(_start_clients(self.app.port, self.clients, self._matches))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def connect_clients(self) -> WorkerMemory:
        """Connect all clients while there are no events; return the memory that the workers use before and after."""
        before = self._memory()
        self._command("connect")
        return WorkerMemory(before, self._memory())

    def storm(self, name: str, *, with_id: bool, kill_worker: bool = False) -> Storm:
        """Drop all clients, which reconnect within a second while there are events.

        Args:
            name: of the storm, for the report.
            with_id: whether the clients send their last id.
            kill_worker: whether one worker is killed at the same time.
        """
        before = self._queries()
        with self._events():
            if kill_worker:
                os.kill(self._worker_processes()[0].pid, signal.SIGKILL)
            figures = self._command("reconnect with-id" if with_id else "reconnect without-id")
        self.assert_complete()
        queries = max(after - earlier for after, earlier in zip(self._queries(), before, strict=True))
        del figures["first"], figures["stale"]
        return Storm(name, queries=queries, **figures)

    def gap(self) -> Gap:
        """Kill the listener and start another one, which begins a new epoch."""
        connections, memory = [0], [0]
        with _calling_every(
            0.1, lambda: connections.append(self._snapshot_connections()), lambda: memory.append(self._memory())
        ):
            self._listener.kill()
            with Listener(self._folder, self._settings):
                figures = self._command("gap")
        first = figures["first"]
        return Gap(figures["half"] - first, figures["all"] - first, figures["stale"], max(connections), max(memory))

    def assert_complete(self) -> None:
        """Wait until every client has the number that the database has; assert that none missed an event."""
        rows = self._connection.execute("SELECT match_id, n FROM storm").fetchall()
        expected = {match: [str(number)] for match, number in rows}
        state: dict[str, Any] = {}

        def all_complete() -> bool:
            state.update(self._command("state"))
            return {match: list(numbers) for match, numbers in state["numbers"].items()} == expected

        wait_until(all_complete, 20, "every client has the number that the database has")
        assert (state["missed"], state["errors"]) == (0, 0)

    def _command(self, command: str) -> dict[str, Any]:
        assert self._client_process.stdin
        assert self._client_process.stdout
        self._client_process.stdin.write(command + "\n")
        self._client_process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._client_process.stdout.readline())
        return answer

    @contextmanager
    def _events(self) -> Iterator[None]:
        """Notify at the rate of the environment while the block runs."""
        with (
            closing(psycopg.connect(self._database, autocommit=True)) as connection,
            _calling_every(1 / self._rate, lambda: connection.execute(EVENT_IN_EACH_MATCH)),
        ):
            yield

    def _snapshot_connections(self) -> int:
        with closing(psycopg.connect(self._database, autocommit=True)) as connection:
            sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'notifymux-snapshot%'"
            return int(connection.execute(sessions).fetchall()[0][0])

    def _worker_processes(self) -> list[psutil.Process]:
        return list(psutil.Process(self.app.pid).children())

    def _memory(self) -> int:
        return sum(worker.memory_full_info().pss for worker in self._worker_processes())

    def _queries(self) -> list[int]:
        """Return the number of snapshot queries so far by match, which sequences in PostgreSQL count."""
        every = (self._connection.execute(f"SELECT last_value FROM storm_queries_{match}".encode()).fetchone()
                 for match in range(self._matches))  # fmt: skip
        return [row[0] for row in every if row]


@contextmanager
def _calling_every(seconds: float, *calls: Callable[[], object]) -> Iterator[None]:
    """Call all of `calls` at this interval, in a thread, while the block runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            for call in calls:
                call()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _start_clients(port: int, clients: int, matches: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.storm.clients", str(port), str(clients), str(matches)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment({}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
