"""A house with one worker, and the question after every visit: did anybody notice?"""

import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support.programs import App, Client
from tests.support.waiting import wait_until

_BUGS = re.compile(r"Traceback|Exception in| (ERROR|CRITICAL) ")


class Server:
    """An application with one worker.

    Args:
        app: the application.
        database: what it hears.
    """

    def __init__(self, app: App, database: str) -> None:
        self.app, self.database = app, database
        self.worker = self._workers()[0]
        self._visits = count(1)

    @property
    def port(self) -> int:
        return self.app.port

    @property
    def clients(self) -> int:
        """How many there are, by the worker's own word."""
        return int(self.app.get("/readyz")[1]["clients"])

    @contextmanager
    def unharmed(self, settles_within: float = 10.0) -> Iterator[Client]:
        """Asserts that what happens meanwhile costs another client nothing, and leaves nothing behind.

        Yields:
            The other client, which hears an event every few milliseconds.
        """
        clients, files, lines = self.clients, self._files(), len(self.app.lines)
        witness = f"witness-{next(self._visits)}"
        with self.app.client(witness) as client:
            client.wait_for_initial_load()
            with self._telling(witness) as told:
                yield client
            heard = [update["data"]["n"] for update in client.wait_for_updates(told[0])]
        assert heard == list(range(1, told[0] + 1))
        wait_until(lambda: self.clients == clients, settles_within, "as many clients as before")
        wait_until(lambda: self._files() <= files, settles_within, f"{files} open files as before")
        assert [worker.pid for worker in self._workers()] == [self.worker.pid]
        assert not _BUGS.search(log := "\n".join(self.app.lines[lines:])), log

    @contextmanager
    def _telling(self, match: str) -> Iterator[list[int]]:
        """Has a match hear events, of which it yields the number."""
        told, ending = [0], threading.Event()

        def tell() -> None:
            with closing(psycopg.connect(self.database, autocommit=True)) as connection:
                while not ending.is_set() or not told[0]:
                    connection.execute(
                        "SELECT pg_notify('match_change', json_build_object('match_id', %s::text, 'n', %s::int)::text)",
                        [match, told[0] + 1],
                    )
                    told[0] += 1
                    ending.wait(0.005)

        thread = threading.Thread(target=tell)
        thread.start()
        try:
            yield told
        finally:
            ending.set()
            thread.join()

    def _workers(self) -> list[psutil.Process]:
        return list(psutil.Process(self.app.pid).children())

    def _files(self) -> int:
        """The worker's open files, but for the snapshots' connections, which it keeps for five seconds."""
        port = int(conninfo_to_dict(self.database)["port"] or 0)
        connections = self.worker.net_connections()
        snapshots: int = sum(bool(found.raddr) and found.raddr.port == port for found in connections)
        return int(self.worker.num_fds()) - snapshots
