"""A server with one worker, and a check that another client and the worker are not affected by what a test does."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

import psutil
import psycopg

from tests.support.programs import App, Client
from tests.support.waiting import wait_until

_BUGS = re.compile(r"Traceback|Exception in| (ERROR|CRITICAL) ")


class Server:
    """An application with one worker.

    Args:
        app: the application.
        database: the database whose notifications it receives.
    """

    def __init__(self, app: App, database: str) -> None:
        self.app, self.database = app, database
        self.worker = self._workers()[0]
        self._witnesses = count(1)

    @property
    def port(self) -> int:
        return self.app.port

    @property
    def clients(self) -> int:
        """The number of clients that the worker reports."""
        return int(self.app.get("/readyz")[1]["clients"])

    @contextmanager
    def unaffected(self, settle_seconds: float = 10.0) -> Iterator[Client]:
        """Check that another client loses no event meanwhile, and that no client, open file or error is left behind.

        Yields:
            The other client, which receives an event every few milliseconds.
        """
        clients, files, lines = self.clients, self._files(), len(self.app.lines)
        witness = f"witness-{next(self._witnesses)}"
        with self.app.client(witness) as client:
            client.wait_for_initial_load()
            with self._notifying(witness) as sent:
                yield client
            received = [update["data"]["n"] for update in client.wait_for_updates(sent[0])]
        assert received == list(range(1, sent[0] + 1))
        wait_until(lambda: self.clients == clients, settle_seconds, "as many clients as before")
        wait_until(
            lambda: len(self._files()) <= len(files),
            settle_seconds,
            lambda: f"as many open files as before: {files}, now {self._files()}",
        )
        assert [worker.pid for worker in self._workers()] == [self.worker.pid]
        assert not _BUGS.search(log := "\n".join(self.app.lines[lines:])), log

    @contextmanager
    def _notifying(self, match: str) -> Iterator[list[int]]:
        """Send events to a match; yield a list with their count."""
        sent, ending = [0], threading.Event()

        def notify() -> None:
            with closing(psycopg.connect(self.database, autocommit=True)) as connection:
                while not ending.is_set() or not sent[0]:
                    connection.execute(
                        "SELECT pg_notify('match_change', json_build_object('match_id', %s::text, 'n', %s::int)::text)",
                        [match, sent[0] + 1],
                    )
                    sent[0] += 1
                    ending.wait(0.005)

        thread = threading.Thread(target=notify)
        thread.start()
        try:
            yield sent
        finally:
            ending.set()
            thread.join()

    def _workers(self) -> list[psutil.Process]:
        return list(psutil.Process(self.app.pid).children())

    def _files(self) -> dict[int, str]:
        """Return what the worker has open, without its connections to servers: those open and close on their own."""
        files = {}
        for path in Path(f"/proc/{self.worker.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                files[int(path.name)] = str(path.readlink())
        # After the list: what opens or closes between the two is no difference that stays.
        for found in self.worker.net_connections("all"):
            if found.family == socket.AF_UNIX or (found.raddr and found.laddr.port != self.port):
                files.pop(found.fd, None)  # the feed's among them
        return files
