"""A listener, an application, and a crowd of clients that all go and come back at once."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
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
    PERFORM nextval('storm_queries_' || id);
    RETURN (SELECT json_build_object('n', n) FROM storm WHERE match_id = id);
END $$;
"""
TICK = """
UPDATE storm SET n = n + 1 RETURNING pg_notify('match_change', json_build_object(
    'match_id', match_id, 'operation', 'UPDATE', 'data', json_build_object('n', n))::text)
"""


class Row(NamedTuple):
    """What a storm cost; times in seconds from its begin."""

    name: str
    half: float
    all: float
    recovered: int
    snapshots: int
    queries: int  # of the match with the most
    losses: Mapping[str, int]  # connections that were lost before they were served, by why


class Memory(NamedTuple):
    """Of all workers together, in bytes."""

    before: int
    after: int


class Environment:
    """The parts, all started.

    Args:
        folder: for the programs.
        database: an empty one.
        settings: of both programs.
        clients: how many, in a process of their own.
        workers: how many serve them.
        matches: which they share evenly.
        rate: events a second in each match, while a storm is on.
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
    ) -> None:
        self.clients, self.workers, self._matches, self._rate = clients, workers, matches, rate
        self._database, self._folder = database, folder
        self._settings = {**settings, "SNAPSHOT_QUERY": "SELECT storm_snapshot(%(match_id)s)"}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._connection = stack.enter_context(closing(psycopg.connect(self._database, autocommit=True)))
            self._connection.execute(TABLE)
            for match in range(self._matches):
                self._connection.execute(f"INSERT INTO storm VALUES ('{match}')".encode())
                self._connection.execute(f"CREATE SEQUENCE storm_queries_{match} MINVALUE 0".encode())
                self._connection.execute("SELECT nextval(%s)", [f"storm_queries_{match}"])
            stack.enter_context(Listener(self._folder, self._settings)).aligned()
            self.app = stack.enter_context(App(self._folder, self._settings, self.workers)).ready()
            wait_until(lambda: [self.app.get("/readyz")[0] for _ in range(8)] == [200] * 8)
            self._crowd = stack.enter_context(_crowd(self.app.port, self.clients, self._matches))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def gather(self) -> Memory:
        """Everybody connects, and nothing happens."""
        before = self._memory()
        self._ask("come")
        return Memory(before, self._memory())

    def storm(self, name: str, *, keep: bool, kill: bool = False) -> Row:
        """Everybody goes and comes back within a second, while events go on.

        Args:
            name: of the row.
            keep: they come with their last id.
            kill: one worker is killed in the same moment.
        """
        before = self._queries()
        with self._events():
            if kill:
                os.kill(self._workers()[0].pid, signal.SIGKILL)
            answer = self._ask("storm keep" if keep else "storm lose")
        self.check()
        queries = max(after - earlier for after, earlier in zip(self._queries(), before, strict=True))
        return Row(name, queries=queries, **answer)

    def check(self) -> None:
        """Everybody has what the database says, and nobody saw a hole on the way there."""
        rows = self._connection.execute("SELECT match_id, n FROM storm").fetchall()
        expected = {match: [str(number)] for match, number in rows}
        state: dict[str, Any] = {}

        def has_all() -> bool:
            state.update(self._ask("state"))
            return {match: list(numbers) for match, numbers in state["numbers"].items()} == expected

        wait_until(has_all, 20, "everybody has what the database says")
        assert (state["holes"], state["errors"]) == (0, 0)

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._crowd.stdin
        assert self._crowd.stdout
        self._crowd.stdin.write(command + "\n")
        self._crowd.stdin.flush()
        answer: dict[str, Any] = json.loads(self._crowd.stdout.readline())
        return answer

    @contextmanager
    def _events(self) -> Iterator[None]:
        ending = threading.Event()

        def tick() -> None:
            with closing(psycopg.connect(self._database, autocommit=True)) as connection:
                while not ending.wait(1 / self._rate):
                    connection.execute(TICK)

        thread = threading.Thread(target=tick)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    def _workers(self) -> list[psutil.Process]:
        return list(psutil.Process(self.app.pid).children())

    def _memory(self) -> int:
        return sum(worker.memory_full_info().pss for worker in self._workers())

    def _queries(self) -> list[int]:
        """Snapshot queries so far, by match; PostgreSQL counts them itself."""
        every = (self._connection.execute(f"SELECT last_value FROM storm_queries_{match}".encode()).fetchone()
                 for match in range(self._matches))  # fmt: skip
        return [row[0] for row in every if row]


@contextmanager
def _crowd(port: int, clients: int, matches: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.storm.clients", str(port), str(clients), str(matches)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment({}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
